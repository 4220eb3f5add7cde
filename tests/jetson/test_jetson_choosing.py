"""Selecting hardware never fails: whatever VPI, PyCUDA or TensorRT raise, the CPU does it, and the reason is said."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from agent.doctor import examine
from agent.runtimes import choose_decoder, choose_encoder
from agent.vision import choose_vision
from engines.manifest import find_model, load_model
from engines.preprocess import Preprocessor

pytestmark = pytest.mark.usefixtures("jetson")


def raising(error: Exception) -> Callable[..., Any]:
    def fails(*_: object, **__: object) -> Any:
        raise error

    return fails


def broken_module(name: str, line: str) -> Callable[[pytest.MonkeyPatch, Path], None]:
    def arrange(patch: pytest.MonkeyPatch, folder: Path) -> None:
        (folder / f"{name}.py").write_text(line)
        for loaded in [loaded for loaded in sys.modules if loaded.partition(".")[0] == name]:
            patch.delitem(sys.modules, loaded)
        patch.syspath_prepend(folder)

    return arrange


def no_stream(patch: pytest.MonkeyPatch, _: Path) -> None:
    patch.setattr("vpi.Stream", raising(RuntimeError("VPI_ERROR_OUT_OF_MEMORY")))


def odd_arguments(patch: pytest.MonkeyPatch, _: Path) -> None:
    patch.setattr("vpi.optflow_dense", raising(ValueError("quality is not of this enum")))


def odd_read_out(patch: pytest.MonkeyPatch, _: Path) -> None:
    @contextmanager
    def flat(image: Any) -> Iterator[Any]:
        image._waiting.sync()
        yield np.zeros((4, 4), np.int16)

    patch.setattr("vpi.Image.rlock_cpu", flat)


def unloadable(patch: pytest.MonkeyPatch, _: Path) -> None:
    from pycuda import driver

    patch.setattr(driver, "module_from_buffer", raising(driver.LogicError("cuModuleLoadDataEx failed: no binary")))


COMMAND = re.compile(r"(apt|pip) install \S")
FLOW, KERNELS, ENCODER = "flow", "kernels", "encoder"
CASES = {
    "no stream of VPI": (no_stream, FLOW, "VPI_ERROR_OUT_OF_MEMORY"),
    "flow refuses its arguments": (odd_arguments, FLOW, "quality is not of this enum"),
    "a read-out of another shape": (odd_read_out, FLOW, "IndexError"),
    "kernels do not load": (unloadable, KERNELS, "cuModuleLoadDataEx failed"),
    "vpi is of another NumPy": (
        broken_module("vpi", "raise AttributeError('_ARRAY_API not found')"),
        FLOW,
        "_ARRAY_API",
    ),
    "libnvinfer is missing": (
        broken_module("tensorrt", "raise OSError('libnvinfer.so.10')"),
        ENCODER,
        "libnvinfer.so.10",
    ),
}


@pytest.mark.parametrize(("arrange", "part", "says"), CASES.values(), ids=CASES)
def test_what_is_broken_is_not_taken_and_says_why(
    arrange: Callable[[pytest.MonkeyPatch, Path], None],
    part: str,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import vpi  # noqa: F401  (so that it is there to be broken)

    monkeypatch.setenv("STILLWATCH_ENGINES", str(tmp_path / "engines"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "modules").mkdir()
    arrange(monkeypatch, tmp_path / "modules")
    model = load_model(find_model("reference"))
    with capture_logs() as logs:
        vision = choose_vision()
        encoding = choose_encoder(model, may_build=False)
        speaking = choose_decoder(model, beside=encoding, may_build=False)
    ops, _ = vision.camera(Preprocessor(model.manifest))
    assert not getattr(ops, "uses_ofa", False) or part == ENCODER
    assert vision.on_gpu == (part != KERNELS) and encoding.runtime is None and speaking.runtime is None
    why = {FLOW: vision.flow_why, KERNELS: vision.patches_why, ENCODER: encoding.not_taken}[part]
    assert says in why[0]
    assert [log for log in logs if log["log_level"] in ("warning", "error") and says in str(log)], logs

    if part != ENCODER:
        assert COMMAND.search(why[0]) and why[0].endswith("."), why
    report = examine(sysfs=tmp_path)
    assert report.healthy and says in report.parts[part].not_taken[0]
