"""What coherence is worth on given clips: a full encode of every frame against the coherent path, and against every
alternative that a user would pick."""

from __future__ import annotations

from agent.bench.bound import Bound
from agent.bench.chart import write_chart
from agent.bench.clips import Clip
from agent.bench.measure import Wanted, bench
from agent.bench.rivals import NAMES
from agent.bench.show import render

__all__ = ["NAMES", "Bound", "Clip", "Wanted", "bench", "render", "write_chart"]
