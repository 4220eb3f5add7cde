"""What every test may ask for."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("stillwatch", deadline=None)  # on a busy machine a deadline fails what is right
settings.load_profile("stillwatch")
_STATUS = pytest.StashKey[int]()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real clips: STILLWATCH_DATA, else `shared/data` beside the checkout. Without it, skip."""
    folder = Path(os.environ.get("STILLWATCH_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real clips in {folder}; set STILLWATCH_DATA to a folder that has them")
    return folder


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """A thread that a test has left inside a native library aborts the process when the interpreter takes itself apart
    around it; as the command does, end without that."""
    if _STATUS in config.stash and threading.active_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[_STATUS])
