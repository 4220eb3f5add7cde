"""Synthetic token maps: 8×8 cells, 64 dimensions, 10 frames a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.insight.change import Change, ChangeKind, ChangePhase, ChangeSettings, SemanticChange
from config.errors import ConfigError

GRID, DIM, FPS = (8, 8), 64, 10


def scene(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((GRID[0] * GRID[1], DIM)).astype(np.float32)


def with_object(features: np.ndarray, row: int, col: int, height: int, width: int, seed: int = 99) -> np.ndarray:
    changed = features.copy().reshape(*GRID, DIM)
    changed[row : row + height, col : col + width] = scene(seed).reshape(*GRID, DIM)[:height, :width]
    return changed.reshape(-1, DIM)


def cells_of(row: int, col: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(GRID, bool)
    mask[row : row + height, col : col + width] = True
    return mask.reshape(-1)


class Watch:
    """A SemanticChange on a clock. `describe`: call described() for every change, as the daemon does."""

    def __init__(
        self, configured: ChangeSettings | None = None, *, describe: bool = True, start_s: float = 50.0
    ) -> None:
        self.part = SemanticChange(GRID, configured)
        self.now_s = start_s
        self.describe = describe

    def run(self, seconds: float, frame: Callable[[float], np.ndarray] | np.ndarray, **kwargs: object) -> list[Change]:
        return list(self._changes(seconds, frame, **kwargs))

    def _changes(
        self, seconds: float, frame: Callable[[float], np.ndarray] | np.ndarray, **kw: object
    ) -> Iterator[Change]:
        for i in range(round(seconds * FPS)):
            features = frame(i / FPS) if callable(frame) else frame
            change = self.part.update(features, self.now_s, **kw)  # type: ignore[arg-type]
            self.now_s += 1 / FPS
            if change is not None:
                if self.describe:
                    self.part.described(features)
                yield change


@settings(max_examples=30, deadline=None)
@given(
    row=st.integers(0, 5),
    col=st.integers(0, 5),
    height=st.integers(1, 3),
    width=st.integers(2, 3),
    seed=st.integers(0, 99),
)
def test_a_new_object_is_told_once_where_it_is_and_again_when_it_leaves(
    row: int, col: int, height: int, width: int, seed: int
) -> None:
    empty = scene(seed)
    there = with_object(empty, row, col, height, width, seed=seed + 1000)
    watch = Watch(ChangeSettings(min_cells=2))
    assert watch.run(20, empty) == []
    (entered,) = watch.run(20, there)
    assert entered.kind is ChangeKind.DRIFT
    assert entered.regions == ((col, row, width, height),)
    assert entered.area_share == height * width / 64
    assert entered.onset_s == pytest.approx(70.0)
    (left,) = watch.run(20, empty)
    assert left.regions == entered.regions


def test_a_shift_that_all_tokens_share_is_no_change_of_any_of_them() -> None:
    empty = scene(0) / np.linalg.norm(scene(0), axis=1, keepdims=True)
    shifted = empty + scene(5)[0] / np.linalg.norm(scene(5)[0])
    watch = Watch()
    watch.run(10, empty)
    assert watch.run(20, shifted) == []
    assert [c.regions for c in watch.run(5, with_object(shifted, 3, 4, 2, 3))] == [((4, 3, 3, 2),)]


def test_flicker_shorter_than_the_persistence_is_never_told() -> None:
    empty, there = scene(0), with_object(scene(0), 2, 2, 3, 3)
    watch = Watch()
    assert watch.run(60, lambda t: there if t % 1.0 < 0.6 and t > 10 else empty) == []
    assert len(watch.run(2, there)) == 1


def test_slow_drift_adds_up_until_it_is_told() -> None:
    start, end = scene(0), with_object(scene(0), 1, 1, 6, 6)

    def fade(t: float) -> np.ndarray:
        share = np.float32(min(t / 600, 1))
        return (1 - share) * start + share * end

    changes = Watch().run(600, fade)
    assert len(changes) >= 1
    assert changes[0].regions[0][2] * changes[0].regions[0][3] >= 3


def test_sway_and_noise_are_learned_per_token_and_what_stands_before_them_is_still_told() -> None:
    rng = np.random.default_rng(3)
    still, tree = scene(0), with_object(scene(0), 0, 4, 8, 4)

    def sway(t: float) -> np.ndarray:
        share = np.float32(0.5 + 0.5 * np.sin(2 * np.pi * t / 2.7))
        mixed = (1 - share) * still + share * tree
        return (mixed + 0.15 * rng.standard_normal(mixed.shape)).astype(np.float32)

    watch = Watch()
    watch.run(60, sway)
    assert watch.run(240, sway) == []
    assert len(watch.run(5, lambda t: with_object(sway(t), 5, 0, 3, 2, seed=7))) == 1


def test_a_lane_with_traffic_still_shows_what_has_parked() -> None:
    road = scene(0)

    def traffic(t: float) -> np.ndarray:
        return with_object(road, 5, 0, 3, 8, seed=int(t)) if t % 2 < 1 else road

    watch = Watch()
    watch.run(120, traffic)
    watch.run(20, road)
    (parked,) = watch.run(20, with_object(road, 5, 2, 2, 3))
    assert parked.regions == ((2, 5, 3, 2),)


def test_areas_below_the_minimum_and_ignored_tokens_never_count() -> None:
    ignored = np.zeros(GRID, bool)
    ignored[0] = True
    watch = Watch(ChangeSettings(min_cells=4))
    watch.run(10, scene(0), ignored=ignored.reshape(-1))
    clock_and_bird = with_object(with_object(scene(0), 0, 0, 1, 8), 4, 4, 1, 3)
    assert watch.run(20, clock_and_bird, ignored=ignored.reshape(-1)) == []


def test_cuts_in_a_row_are_one_change_and_start_a_new_warm_up() -> None:
    watch = Watch(ChangeSettings(min_interval_s=4, warm_up_s=2))
    watch.run(10, scene(0))
    first = watch.part.update(scene(1), watch.now_s, cut=True)
    assert first is not None and first.kind is ChangeKind.CUT
    assert first.regions == ((0, 0, 8, 8),) and first.area_share == 1
    assert watch.part.state.phase is ChangePhase.WARMING_UP
    watch.now_s += 0.1
    storm = []
    for shot in range(2, 12):
        storm += [watch.part.update(scene(shot), watch.now_s, cut=True)]
        watch.now_s += 0.3
    assert storm == [None] * 10
    (told,) = watch.run(10, scene(11))
    assert told.kind is ChangeKind.CUT
    assert told.onset_s == pytest.approx(60.1)


def test_a_cut_back_to_what_was_described_is_no_change() -> None:
    watch = Watch()
    watch.run(10, scene(0))
    assert watch.part.update(scene(0) + 0.1 * scene(1), watch.now_s, cut=True) is None
    watch.now_s += 0.1
    assert watch.run(20, scene(0)) == []


def test_a_change_is_not_told_again_until_described_and_a_lasting_one_is_not_lost() -> None:
    watch = Watch(describe=False)
    watch.run(10, scene(0))
    assert len(watch.run(30, with_object(scene(0), 2, 2, 3, 3))) == 1
    assert watch.part.state.phase is ChangePhase.TOLD
    watch.part.described(with_object(scene(0), 2, 2, 3, 3))
    assert watch.part.state.phase is ChangePhase.STEADY
    assert len(watch.run(10, with_object(scene(0), 4, 4, 3, 3))) == 1


def test_two_changes_are_never_closer_than_the_minimum_interval() -> None:
    watch = Watch(ChangeSettings(min_interval_s=5))
    times = [c.onset_s for c in watch.run(10, scene(0))]
    for i in range(100):
        for _ in watch.run(1, with_object(scene(0), 2, 2, 3, 3, seed=i)):
            times.append(watch.now_s)
    assert len(times) >= 10
    assert np.diff(times).min() >= 4.9


def test_a_change_below_the_limit_is_told_once_the_maximum_interval_has_passed_without_a_description() -> None:
    faint = scene(0) + 0.55 * (with_object(np.zeros_like(scene(0)), 2, 2, 3, 3))
    watch = Watch(ChangeSettings(max_interval_s=60, enter=0.3, leave=0.2))
    watch.run(10, scene(0))
    assert watch.run(40, faint) == []
    watch.part.described(scene(0))
    assert watch.run(59, faint) == []
    assert len(watch.run(5, faint)) == 1


def test_between_the_two_limits_a_change_goes_on_but_none_begins() -> None:
    def at(distance: float) -> np.ndarray:
        """scene(0) with nine tokens turned to this cosine distance."""
        there = cells_of(2, 2, 3, 3)
        features = scene(0)
        along = features[there] / np.linalg.norm(features[there], axis=1, keepdims=True)
        across = scene(1)[there] - (scene(1)[there] * along).sum(axis=1, keepdims=True) * along
        across /= np.linalg.norm(across, axis=1, keepdims=True)
        features[there] = (1 - distance) * along + np.sqrt(1 - (1 - distance) ** 2) * across
        return features

    watch = Watch(ChangeSettings(enter=0.2, leave=0.5, persist_s=1.0), describe=False)
    watch.run(10, scene(0))
    assert watch.run(10, at(0.15)) == []
    watch.run(0.3, at(0.25))
    (told,) = watch.run(5, at(0.15))
    assert told.distance == pytest.approx(0.15, abs=0.01)


def test_warm_up_is_visible_and_reset_is_total() -> None:
    watch = Watch(ChangeSettings(warm_up_s=4))
    assert watch.part.state.phase is ChangePhase.WARMING_UP and watch.part.state.progress == 0
    watch.run(2, scene(0))
    assert 0.4 < watch.part.state.progress < 0.6
    watch.run(8, scene(0))
    assert watch.part.state.phase is ChangePhase.STEADY
    watch.part.reset()
    assert watch.run(10, scene(5)) == []


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"enter": 3.0}, "change.enter"),
        ({"leave": 1.0}, "change.leave"),
        ({"max_interval_s": 1.0}, "change.max_interval_s"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(wrong: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        ChangeSettings(**wrong)  # type: ignore[arg-type]
