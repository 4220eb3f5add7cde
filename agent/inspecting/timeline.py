"""How a clip was handled, over time: a strip below each frame of the video, and a chart of the whole clip."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from agent.inspecting.drawing import DIM, INK, Colour, Picture, blank, write
from agent.inspecting.moments import Moment
from engines.plan import Mode

MODE_COLOURS: Mapping[Mode, Colour] = {
    Mode.REUSE: (70, 74, 84),
    Mode.WARPING: (60, 180, 110),
    Mode.HIERARCHICAL_DIFF: (235, 150, 50),
    Mode.FULL: (90, 140, 255),
    Mode.SCENE_CUT_FULL: (240, 60, 80),
    Mode.ERROR: (255, 0, 255),
}
_GHOST: Colour = (255, 230, 80)
_RULE: Colour = (52, 52, 58)
_PER_FRAME = 4
_PLOT_PX, _LEFT, _RIGHT = 1200, 150, 60
_LANE_PX, _GAP = 84, 16


def strip(moments: Sequence[Moment], size: tuple[int, int]) -> Picture:
    """The last moments in `size` (width, height), the newest at the right: bars as high as the share that was encoded,
    in the colour of the mode; above them a line for C(t)."""
    width, height = size
    out = blank(size)
    shown = moments[-(width // _PER_FRAME) :]
    band = height - 8
    points = []
    for place, moment in enumerate(reversed(shown)):
        right = width - place * _PER_FRAME - 1
        top = height - 1 - max(3, round(moment.encoded * band))
        cv2.rectangle(out, (right - _PER_FRAME + 2, top), (right, height - 1), MODE_COLOURS[moment.mode], cv2.FILLED)
        if moment.cut:
            cv2.line(out, (right, 0), (right, height - 1), MODE_COLOURS[Mode.SCENE_CUT_FULL], 1)
        if moment.ghosts:
            cv2.rectangle(out, (right - 2, 0), (right, 4), _GHOST, cv2.FILLED)
        if moment.coherence is not None:
            points.append((right, round((1 - max(0.0, moment.coherence)) * band) + 4))
    for a, b in pairwise(points):
        cv2.line(out, a, b, INK, 1, cv2.LINE_AA)
    if width - len(shown) * _PER_FRAME > 220:
        write(out, "bars: share encoded; line: C(t)", (6, height - 8), DIM)
    return out


@dataclass(frozen=True, slots=True)
class _Lane:
    """One quantity over time. low, high: ends of its axis. marks: values that get a rule. line: drawn so, or as an
    area."""

    name: str
    value: Callable[[Moment], float | None]
    low: float
    high: float
    marks: Sequence[float]
    form: str
    line: bool = False


def chart(moments: Sequence[Moment], title: str, floor: float) -> Picture:
    """The whole clip, however long: where more than one frame falls on a column, the mode of the dearest, the highest
    share, the lowest line. floor: of fidelity."""
    lanes = _lanes(moments, floor)
    head, band = 64, 26
    height = head + band + _GAP + len(lanes) * (_LANE_PX + _GAP) + 30
    out = blank((_LEFT + _PLOT_PX + _RIGHT, height))
    write(out, title, (10, 24), INK, 0.55)
    _legend(out, moments, 48)
    columns = _columns(moments)
    for x, column in enumerate(columns):
        dearest = max(column, key=lambda moment: moment.encoded)
        out[head : head + band, _LEFT + x] = MODE_COLOURS[dearest.mode]
        if any(moment.ghosts for moment in column):
            out[head : head + 5, _LEFT + x] = _GHOST
    write(out, "mode", (10, head + 18))
    for place, lane in enumerate(lanes):
        _draw(out, lane, columns, head + band + _GAP + place * (_LANE_PX + _GAP))
    bottom = height - 30
    for x, column in enumerate(columns):
        if any(moment.cut for moment in column):
            out[head:bottom, _LEFT + x] = MODE_COLOURS[Mode.SCENE_CUT_FULL]
    _time_axis(out, moments, bottom)
    return out


def _lanes(moments: Sequence[Moment], floor: float) -> list[_Lane]:
    fidelities = [moment.fidelity for moment in moments if moment.fidelity is not None]
    worst = min([floor, *fidelities])
    slowest = max(1.0, float(np.percentile([moment.ms for moment in moments], 99)))
    return [
        _Lane("encoded", lambda m: m.encoded, 0, 1, (0, 0.5, 1), "{:.0%}"),
        _Lane("changed", lambda m: m.changed, 0, 1, (0, 0.5, 1), "{:.0%}"),
        _Lane("coherence C(t)", lambda m: m.coherence, 0, 1, (0, 0.5, 0.8, 1), "{:g}", line=True),
        _Lane("fidelity, estimate", lambda m: m.fidelity, 2 * worst - 1, 1, (floor, 1), "{:.3f}", line=True),
        _Lane("ms a frame", lambda m: m.ms, 0, slowest, (0, slowest), "{:.1f}"),
    ]


def _columns(moments: Sequence[Moment]) -> list[Sequence[Moment]]:
    ends = [x * len(moments) // _PLOT_PX for x in range(_PLOT_PX + 1)]
    return [moments[first : max(first + 1, last)] for first, last in pairwise(ends)]


def _draw(out: Picture, lane: _Lane, columns: Sequence[Sequence[Moment]], top: int) -> None:
    bottom = top + _LANE_PX

    def at(value: float) -> int:
        share = (value - lane.low) / (lane.high - lane.low)
        return round(bottom - min(1.0, max(0.0, share)) * _LANE_PX)

    write(out, lane.name, (10, top + _LANE_PX // 2 + 5))
    for mark in lane.marks:
        cv2.line(out, (_LEFT, at(mark)), (_LEFT + _PLOT_PX, at(mark)), _RULE, 1)
        write(out, lane.form.format(mark), (_LEFT + _PLOT_PX + 6, at(mark) + 5), DIM)
    before: tuple[int, int] | None = None
    for x, column in enumerate(columns):
        values = [value for value in map(lane.value, column) if value is not None]
        if not values:
            before = None
        elif lane.line:
            here = (_LEFT + x, at(min(values)))
            cv2.line(out, before or here, here, INK, 1, cv2.LINE_AA)
            before = here
        else:
            dearest = max(column, key=lambda moment: lane.value(moment) or 0.0)
            out[at(max(values)) : bottom, _LEFT + x] = MODE_COLOURS[dearest.mode]


def _legend(out: Picture, moments: Sequence[Moment], base: int) -> None:
    counts = Counter(moment.mode for moment in moments)
    x = 10
    marks = [(f"{mode.value} {counts[mode]}", colour) for mode, colour in MODE_COLOURS.items() if counts[mode]]
    marks += [("ghosts", _GHOST)] if any(moment.ghosts for moment in moments) else []
    marks += [("cut", MODE_COLOURS[Mode.SCENE_CUT_FULL])] if any(moment.cut for moment in moments) else []
    for text, colour in marks:
        cv2.rectangle(out, (x, base - 10), (x + 12, base + 2), colour, cv2.FILLED)
        write(out, text, (x + 18, base))
        x += 34 + 8 * len(text)


def _time_axis(out: Picture, moments: Sequence[Moment], top: int) -> None:
    first, last = moments[0].time_s, moments[-1].time_s
    if last <= first:
        return
    step = _nice((last - first) / 10)
    for number in range(math.ceil(first / step), math.floor(last / step) + 1):
        x = _LEFT + round((number * step - first) / (last - first) * _PLOT_PX)
        cv2.line(out, (x, top), (x, top + 5), DIM, 1)
        write(out, f"{number * step:g} s", (x - 8, top + 20), DIM)


def _nice(step: float) -> float:
    """The next larger of 1, 2, 5 · 10ⁿ."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)
