"""Every kernel through NVIDIA's compilers, for every target, without warnings and without spills. Nothing runs here."""

from __future__ import annotations

import ctypes
import importlib.util
import runpy
from pathlib import Path
from typing import Any

import pytest

from config.errors import EngineFault
from vpi_ops import kernels
from vpi_ops.cuda import SIGNATURES

ROOT = Path(__file__).parents[1]
SCRIPT, DOCS = ROOT / "scripts" / "build-kernels", ROOT / "docs" / "jetson.md"


@pytest.fixture(scope="module")
def nvcc() -> Path:
    found = kernels.find_nvcc()
    if found is None or kernels.toolkit_of(found)[0] not in kernels.TARGETS:
        pytest.skip("no nvcc of CUDA 12 or 13 (set NVCC, or have it on PATH)")
    return found


def test_every_kernel_is_built_for_every_target_without_warnings_or_spills(nvcc: Path, tmp_path: Path) -> None:
    toolkit = kernels.toolkit_of(nvcc)
    file, said = kernels.build(nvcc, tmp_path)
    assert file == tmp_path / kernels.fatbin_name(toolkit)
    assert file.stat().st_size > 100_000
    script = runpy.run_path(str(SCRIPT))
    rows = list(script["resources"](said))
    machines = kernels.TARGETS[toolkit[0]].machine
    assert {row[:2] for row in rows} == {(name, machine) for name in SIGNATURES for machine in machines}
    assert [row for row in rows if row[4]] == []
    assert max(row[2] for row in rows) <= 64  # registers: four blocks of 256 threads on a multiprocessor
    assert "warning" not in said
    assert [each.name for each in tmp_path.iterdir()] == [file.name]
    if toolkit == (13, 0):  # the documented one
        assert "\n".join(script["resource_table"](said)) in DOCS.read_text(encoding="utf-8")


def test_the_documented_traffic_is_what_the_script_prints() -> None:
    table = "\n".join(runpy.run_path(str(SCRIPT))["traffic_table"]())
    assert table in DOCS.read_text(encoding="utf-8")


def test_a_failed_build_leaves_nothing_and_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "nvcc"
    text = "[ $1 = --version ] && echo 'release 12.6, V12.6.85' && exit 0\necho 'error: no such thing'\nexit 2\n"
    broken.write_text(f"#!/bin/sh\n{text}", encoding="utf-8")
    broken.chmod(0o755)
    with pytest.raises(EngineFault, match="no such thing"):
        kernels.build(broken, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_script_says_what_to_do_without_a_compiler(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernels, "find_nvcc", lambda: None)
    monkeypatch.setattr("sys.argv", [str(SCRIPT)])
    assert runpy.run_path(str(SCRIPT))["main"]() == 69
    assert "install the CUDA toolkit" in capsys.readouterr().out


def package(name: str) -> Path:
    """Folder of one of NVIDIA's wheels."""
    try:
        spec = importlib.util.find_spec(f"nvidia.{name}")
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        wheels = "nvidia-cuda-nvrtc-cu12==12.6.85 nvidia-cuda-runtime-cu12==12.6.77"
        pytest.skip(f"without nvcc 12, CUDA 12 is tried through NVRTC: pip install {wheels}")
    return Path(spec.origin).parent


def test_the_compiler_of_cuda_12_takes_the_sources_too() -> None:
    folder, headers = package("cuda_nvrtc"), package("cuda_runtime") / "include"
    nvrtc: Any = ctypes.CDLL(str(folder / "lib" / "libnvrtc.so.12"))
    options = [*kernels.OPTIONS, "--gpu-architecture=sm_87", f"-I{kernels.FOLDER}", f"-I{headers}"]
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), kernels.ENTRY.read_bytes(), b"stillwatch.cu", 0, None, None)
    given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    status = nvrtc.nvrtcCompileProgram(program, len(options), given)
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    assert (status, log.value.decode()) == (0, "")
    nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
    assert size.value > 50_000
