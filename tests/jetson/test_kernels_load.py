"""Where kernels come from when an agent starts: built ahead, kept from before, or compiled now. On the simulated
device, whose images say for which architecture they were made."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.errors import EngineFault
from vpi_ops import kernels
from vpi_ops.cuda import load

GOOD = b"simulated cubin sm_87"


@pytest.fixture(autouse=True)
def _context(jetson: Any) -> Iterator[None]:
    from pycuda import driver

    driver.init()
    driver.Device(0).retain_primary_context().push()
    yield
    driver.Context.pop()


@pytest.fixture
def no_nvcc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "find_nvcc", lambda: None)


def test_what_was_compiled_once_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "compiled here for sm_87" in load([tmp_path]).origin
    monkeypatch.setattr(kernels, "find_nvcc", lambda: None)
    kept = tmp_path / kernels.cubin_name((12, 6), "sm_87")
    assert load([tmp_path]).origin == str(kept)
    assert list(tmp_path.iterdir()) == [kept]


@pytest.mark.usefixtures("no_nvcc")
def test_what_was_built_ahead_comes_before_the_cache_and_may_be_of_an_older_toolkit(tmp_path: Path) -> None:
    ahead, cache = tmp_path / "ahead", tmp_path / "cache"
    for folder, name in (
        (ahead, kernels.fatbin_name((12, 2))),
        (ahead, kernels.fatbin_name((13, 0))),  # the driver is of 12.6
        (cache, kernels.cubin_name((12, 2), "sm_87")),
        (cache, kernels.cubin_name((12, 6), "sm_110")),
    ):
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(GOOD)
    assert load([ahead, cache]).origin == str(ahead / kernels.fatbin_name((12, 2)))


def test_a_damaged_file_costs_a_compilation_and_is_replaced(tmp_path: Path) -> None:
    kept = tmp_path / kernels.cubin_name((12, 6), "sm_87")
    kept.write_bytes(b"half of it")
    assert "compiled here" in load([tmp_path]).origin
    assert kept.read_bytes() == GOOD


@pytest.mark.usefixtures("no_nvcc")
def test_what_other_sources_became_is_never_taken(tmp_path: Path) -> None:
    name = kernels.cubin_name((12, 6), "sm_87").replace(kernels.digest(), "0123456789")
    (tmp_path / name).write_bytes(GOOD)
    with pytest.raises(EngineFault, match=re.escape("scripts/build-kernels")):
        load([tmp_path])


def test_a_cache_that_cannot_be_written_is_no_fault(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.write_text("not a folder", encoding="utf-8")
    assert "compiled here" in load([taken / "cache"]).origin


def test_every_toolkit_of_a_jetpack_has_its_targets() -> None:
    assert kernels.code_options((12, 6)) == [
        "-gencode=arch=compute_87,code=sm_87",
        "-gencode=arch=compute_87,code=compute_87",
    ]
    assert "-gencode=arch=compute_110,code=sm_110" in kernels.code_options((13, 0))
    with pytest.raises(EngineFault, match=r"CUDA 11\.4"):
        kernels.code_options((11, 4))
