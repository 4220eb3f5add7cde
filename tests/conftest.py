"""What every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("stillwatch", deadline=None)  # on a busy machine a deadline fails what is right
settings.load_profile("stillwatch")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real clips: STILLWATCH_DATA, else `shared/data` beside the checkout. Without it, skip."""
    folder = Path(os.environ.get("STILLWATCH_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real clips in {folder}; set STILLWATCH_DATA to a folder that has them")
    return folder
