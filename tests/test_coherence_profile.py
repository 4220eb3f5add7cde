"""Where time and memory go: histograms that stay small and near the truth, arrays that count once."""

from __future__ import annotations

import mmap
import sys
from collections import deque
from pathlib import Path

import numpy as np
import pytest
from coherence_standin import PATCH, LinearEncoder, Stretch, costs, frame, texture
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from agent.coherence import memory
from agent.coherence.pipeline import TemporalVLM
from agent.coherence.profile import Histogram, Profile, table
from agent.metrics import Metrics
from engines.manifest import find_model, load_model
from vpi_ops.host import HostOps


@given(st.lists(st.floats(0.001, 100_000), min_size=1, max_size=300))
def test_quantiles_are_near_those_of_all_durations(durations: list[float]) -> None:
    histogram = Histogram()
    for ms in durations:
        histogram.add(ms)
    times = histogram.times()
    assert (times.count, times.max_ms) == (len(durations), max(durations))
    assert times.mean_ms == pytest.approx(np.mean(durations))
    p50, p95 = np.percentile(durations, (50, 95), method="inverted_cdf")
    assert times.p50_ms == pytest.approx(p50, rel=0.05)
    assert times.p95_ms == pytest.approx(p95, rel=0.05)


@given(st.lists(st.one_of(st.floats(0, 1e9), st.sampled_from([0.0, 0.25, 1.0, 4.0])), max_size=100))
def test_every_duration_is_below_the_bounds_that_are_above_it(durations: list[float]) -> None:
    histogram = Histogram()
    for ms in durations:
        histogram.add(ms)
    powers = range(-4, 13, 2)
    assert histogram.up_to(powers) == [sum(ms < 2.0**power for ms in durations) for power in powers]


def test_a_long_run_takes_no_more_memory_than_a_short_one() -> None:
    profile = Profile()

    def size() -> int:
        return sum(sys.getsizeof(histogram._counts) for histogram in profile.histograms().values())

    profile.add({"encode": 3.0})
    before = size()
    for index in range(5000):
        profile.add({"encode": 0.01 * index})
    assert size() == before
    assert profile.report()["encode"]["count"] == 5001


def test_a_profile_adds_up_and_shows_every_stage() -> None:
    profile = Profile()
    for _ in range(10):
        profile.add({"encode": 3.0, "plan": 1.0})
    report = profile.report()
    assert report["frame"]["mean_ms"] == report["encode"]["mean_ms"] + report["plan"]["mean_ms"] == 4.0
    console = Console(width=100)
    with console.capture() as shown:
        console.print(table(report))
    assert [row.split()[0] for row in shown.get().splitlines()[3:6]] == ["│"] * 3
    assert all(word in shown.get() for word in ("encode", "plan", "frame", "75%", "25%", "100%"))
    assert memory.line({"cache": 2_500_000, "model": 9}) == "memory, MB: cache 2.5, model 0.0"


class Holder:
    def __init__(self) -> None:
        self.whole = np.zeros((100, 10), np.float32)
        self.view = self.whole[5:, ::2]
        self.again = deque([{"same": self.whole}, self])
        self.text = "no array"


class OurEncoder(LinearEncoder):
    pass


Holder.__module__ = OurEncoder.__module__ = "agent.test"  # objects of other libraries are not looked into


def test_an_array_counts_once_however_often_it_is_held() -> None:
    held = Holder()
    other = np.zeros(7, np.uint8)
    assert memory.by_part({"a": held, "b": [held.view, other], "c": None}) == {"a": 4000, "b": 7, "c": 0}


def test_the_parts_of_a_camera_are_all_counted() -> None:
    encoder = OurEncoder()
    vlm = TemporalVLM(Stretch(8 * PATCH), encoder, HostOps(), costs=costs())
    for index in range(3):
        vlm.process(frame(np.roll(texture(1), 4 * index, axis=1), index))
    sizes = memory.by_part(vlm.holdings)
    vlm.close()
    cache = sum(array.nbytes for array in (encoder._project, encoder._cache, encoder._features, encoder._coarse))
    pyramids = 3 * 64 * (3 * (7**2 + 4**2) + 4)  # half and quarter size, and a mean
    assert (sizes["cache"], sizes["pyramids"]) == (cache, pyramids)
    assert sizes["frames"] >= texture(1).nbytes
    assert min(sizes["tokens"], sizes["flow"]) > 0


def test_weights_and_the_process_are_measured() -> None:
    model = load_model(find_model("reference"))
    assert memory.weights(model) == sum(Path(model.folder / name).stat().st_size for name in model.manifest.weights)
    before = memory.resident()
    with mmap.mmap(-1, 30_000_000) as ballast:  # of the system's own: an array may lie in what another has given back
        ballast.write(b"1" * len(ballast))
        assert memory.resident() - before > 0.8 * len(ballast)


def test_prometheus_reads_what_was_measured() -> None:
    metrics, profile = Metrics("0"), Profile()
    metrics.watch_stages("front", profile)
    metrics.watch_memory("front", lambda: {"cache": 4096})
    for ms in (0.5, 3.0, 20_000.0):
        profile.add({"encode": ms})
    value = metrics.registry.get_sample_value
    labels = {"camera": "front", "stage": "encode"}
    assert value("stillwatch_stage_seconds_sum", labels) == pytest.approx(20.0035)
    assert value("stillwatch_stage_seconds_count", labels) == 3
    assert value("stillwatch_stage_seconds_bucket", {**labels, "le": "0.001"}) == 1
    assert value("stillwatch_stage_seconds_bucket", {**labels, "le": "4.096"}) == 2
    assert value("stillwatch_memory_bytes", {"camera": "front", "part": "cache"}) == 4096
