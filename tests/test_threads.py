"""How many threads the arithmetic of a running agent uses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = """
import os, sys
sys.path.insert(0, sys.argv[1])
import agent.insight.baseline
import numpy as np
square = np.ones((1500, 1500), np.float32)
square @ square
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_a_product_of_matrices_stays_on_its_thread() -> None:
    ended = subprocess.run([sys.executable, "-c", PRODUCT, str(ROOT)], check=True, capture_output=True, text=True)
    assert ended.stdout.split() == ["1"]
