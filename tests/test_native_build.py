"""The C library on its way from a source to a file that is kept and loaded."""

from __future__ import annotations

import ctypes
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agent.vision import choose_vision
from config.errors import EngineFault
from vpi_ops import choice, host, native
from vpi_ops.host import HostOps
from vpi_ops.native.ops import Library, NativeOps


@pytest.fixture
def real() -> Path:
    """The compiler of this machine."""
    try:
        return native.find_compiler()
    except EngineFault as reason:
        pytest.skip(str(reason))


@pytest.fixture
def compiler(real: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A compiler that does what a script says, with the real one as $CC; -O1 is three times as fast."""

    def make(script: str) -> Path:
        file = tmp_path / "cc"
        file.write_text(f"#!/bin/sh\nCC={real}\n{script}\n")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        return file

    return make


def works(loaded: ctypes.CDLL) -> bool:
    ops = NativeOps(Library(loaded))
    pyramid = ops.pyramid((3, 4), 14)
    ops.fill(pyramid, np.full((42, 56, 3), 50, np.uint8))
    return bool((pyramid.means == 50).all())


def test_it_is_compiled_once_and_a_damaged_file_is_made_anew(compiler: Callable[[str], Path], tmp_path: Path) -> None:
    calls, folder = tmp_path / "calls", tmp_path / "cache"
    cc = compiler(f'case "$*" in *--version*) ;; *) echo >> {calls} ;; esac\nexec $CC "$@" -O1')

    def compiled() -> int:
        return len(calls.read_text().splitlines())

    assert works(native.load(cc, folder))
    assert works(native.load(cc, folder))
    assert compiled() == 1
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    for times, damaged in enumerate((whole[: len(whole) // 2], b"", whole[:-100] + bytes(100)), start=2):
        file.unlink()  # whoever has loaded it goes on with the old one
        file.write_bytes(damaged)
        assert works(native.load(cc, folder))
        assert compiled() == times
        assert file.read_bytes()[:-32] == whole[:-32]


def test_another_compiler_makes_another_file(compiler: Callable[[str], Path], tmp_path: Path) -> None:
    for version in ("1", "2"):
        cc = compiler(f'[ "$1" = --version ] && echo {version} && exit\nexec $CC "$@" -O1')
        assert works(native.load(cc, tmp_path / "cache"))
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_compiler_that_does_not_know_this_processor_compiles_for_any(
    compiler: Callable[[str], Path], tmp_path: Path
) -> None:
    cc = compiler('case "$*" in *=native*) echo unknown; exit 1;; esac\nexec $CC "$@" -O1')
    assert works(native.load(cc, tmp_path / "cache"))


def test_a_cache_that_can_not_be_written_costs_only_time(compiler: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert works(native.load(compiler('exec $CC "$@" -O1'), tmp_path / "file" / "cache"))


def test_a_compiler_that_fails_is_quoted(compiler: Callable[[str], Path], tmp_path: Path) -> None:
    cc = compiler('[ "$1" = --version ] && exit\necho "no stdint.h here"; exit 3')
    with pytest.raises(EngineFault, match=r"status 3: no stdint\.h here"):
        native.load(cc, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_without_a_compiler_opencv_does_it_and_doctor_says_what_would_help(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("STILLWATCH_CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(native, "_opened", {})
    choice.library.cache_clear()
    try:
        assert type(choice.host_ops()) is HostOps
        assert choice.host_shrink() is None
        found = choose_vision(has=lambda _: False)
        assert "OpenCV" in found.patches
        assert any(native.INSTALL in sentence for sentence in found.patches_why)
        monkeypatch.setenv("STILLWATCH_CC", "no-such-cc")
        with pytest.raises(EngineFault, match="names no-such-cc"):
            native.find_compiler()
    finally:
        choice.library.cache_clear()


def test_a_compiler_that_makes_something_else_of_it_is_not_trusted(
    compiler: Callable[[str], Path], tmp_path: Path
) -> None:
    for share, trusted in ((host.TOP_SHARE, True), (0.3, False)):
        cc = compiler(f'exec $CC "$@" -O1 -UTOP_SHARE -DTOP_SHARE={share}')
        found = NativeOps(Library(native.load(cc, tmp_path / str(share))))
        assert choice.agrees(found) is trusted
