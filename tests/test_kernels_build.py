"""Every kernel through NVIDIA's compilers, for every target, without warnings and without spills. Nothing runs here."""

from __future__ import annotations

import ctypes
import functools
import runpy
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from config.errors import EngineFault
from vpi_ops import kernels
from vpi_ops.cuda import SIGNATURES

pytestmark = pytest.mark.timeout(600)  # a busy machine takes ten times as long

ROOT = Path(__file__).parents[1]
SCRIPT, DOCS = ROOT / "scripts" / "build-kernels", ROOT / "docs" / "jetson.md"


FETCHED = runpy.run_path(str(ROOT / "scripts" / "cuda-toolkits"))


def compiler(major: int) -> Path:
    """nvcc of CUDA `major`: the one that the tables were made with if it was fetched, else the machine's own."""
    fetched: Path = FETCHED["NVCC"][major]
    if fetched.is_file():
        return fetched
    found = kernels.find_nvcc()
    if found is None or kernels.toolkit_of(found)[0] != major:
        pytest.skip(f"no nvcc of CUDA {major}; scripts/cuda-toolkits fetches one")
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Built]:
    """Builds all targets of one major version, once."""

    @functools.cache
    def build(major: int) -> Built:
        nvcc, folder = compiler(major), tmp_path_factory.mktemp(f"cuda{major}")
        return Built(kernels.toolkit_of(nvcc), folder, *kernels.build(nvcc, folder))

    return build


class Built(NamedTuple):
    toolkit: kernels.Version
    folder: Path
    file: Path
    said: str


def parts(code: bytes) -> Iterator[tuple[int, int]]:
    """Kind (1 PTX, 2 machine code) and architecture of what is in a fatbin. The format is undocumented; read off files
    of CUDA 12.4 and 13.0."""
    _, _, at, size = struct.unpack_from("<IHHQ", code)
    end = at + size
    while at < end:
        kind, _, header, length = struct.unpack_from("<HHIQ", code, at)
        yield kind, struct.unpack_from("<I", code, at + 28)[0]
        at += header + length


@pytest.mark.parametrize("major", kernels.TARGETS)
def test_every_kernel_is_built_for_every_target_without_warnings_or_spills(
    built: Callable[[int], Built], major: int
) -> None:
    toolkit, folder, file, said = built(major)
    assert file == folder / kernels.fatbin_name(toolkit)
    assert file.stat().st_size > 80_000
    rows = list(runpy.run_path(str(SCRIPT))["resources"](said))
    machines = kernels.TARGETS[major].machine
    assert {row[:2] for row in rows} == {(name, machine) for name in SIGNATURES for machine in machines}
    assert [row for row in rows if row[4]] == []
    assert max(row[2] for row in rows) <= 64  # registers: four blocks of 256 threads on a multiprocessor
    assert "warning" not in said
    assert sorted(parts(file.read_bytes())) == [(1, kernels.TARGETS[major].ptx), *((2, one) for one in machines)]
    assert [each.name for each in folder.iterdir()] == [file.name]


def test_the_documented_resources_are_those_of_both_toolkits(built: Callable[[int], Built]) -> None:
    both = {one.toolkit: one.said for one in map(built, kernels.TARGETS)}
    if list(both) != [(12, 4), (13, 0)]:
        pytest.skip(f"the page tells of CUDA 12.4 and 13.0, here are {list(both)}")
    table = "\n".join(runpy.run_path(str(SCRIPT))["resource_table"](both))
    assert table in DOCS.read_text(encoding="utf-8")


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


@pytest.mark.parametrize("target", ["sm_87", "compute_87"])
def test_the_compiler_of_cuda_12_6_takes_the_sources_too(target: str) -> None:
    folder: Path = FETCHED["NVRTC"]
    if not folder.is_dir():
        pytest.skip("no NVRTC of CUDA 12.6; scripts/cuda-toolkits fetches it")
    headers = folder / "cuda_runtime" / "include"
    nvrtc: Any = ctypes.CDLL(str(folder / "cuda_nvrtc" / "lib" / "libnvrtc.so.12"))
    options = [*kernels.OPTIONS, f"--gpu-architecture={target}", f"-I{kernels.FOLDER}", f"-I{headers}"]
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), kernels.ENTRY.read_bytes(), b"stillwatch.cu", 0, None, None)
    given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    status = nvrtc.nvrtcCompileProgram(program, len(options), given)
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    assert (status, log.value.decode()) == (0, "")
    ask = nvrtc.nvrtcGetCUBINSize if target == "sm_87" else nvrtc.nvrtcGetPTXSize
    assert ask(program, ctypes.byref(size)) == 0
    assert size.value > 40_000
