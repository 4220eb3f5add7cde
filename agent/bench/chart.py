"""Speed-up against fidelity, one panel for each content, as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.bench.show import Report, by_content, geometric_mean
from agent.bench.verdict import front
from config.errors import ConfigError

Point = tuple[float, float]
Pixel = tuple[int, int]
Colour = tuple[int, int, int]

_SCALE = 2  # drawn so many times larger, then averaged: OpenCV's letters are thin and jagged otherwise
_PANEL = (620, 430)
_LEGEND = 46
_MARGIN = (58, 40, 18, 52)  # left, top, right, bottom
_FIDELITIES = (0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995)
_SPEEDUPS = (0.5, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500)
_INK, _GRID, _OURS = (40, 40, 40), (225, 225, 225), (30, 30, 200)
_COLOURS: Mapping[str, Colour] = {
    "every-n": (150, 150, 150),
    "motion-gate": (60, 140, 230),
    "previous-frame-gate": (150, 170, 30),
    "eventful": (190, 90, 120),
}
"""Blue, green, red, as OpenCV wants them."""


def write_chart(reports: Sequence[Report], file: Path) -> None:
    """PNG of `draw`. Raises ConfigError when it can't be written."""
    _, content = cv2.imencode(".png", draw(reports))
    try:
        file.write_bytes(content.tobytes())
    except OSError as error:
        raise ConfigError(f"--png {file}: can't be written: {error.strerror}") from None


def draw(reports: Sequence[Report]) -> NDArray[np.uint8]:
    """uint8 (h, w, 3), BGR. A small dot is a setting of a rival, its mean over a content's clips; a line joins those
    that no other beats. Each of our clips is a dot, and their mean a ring. Fidelity is spread towards 1, speed-up is
    logarithmic."""
    contents = by_content(reports) or {reports[0]["content"]: list(reports)}
    columns = min(2, len(contents))
    rows = math.ceil(len(contents) / columns)
    width, height = _PANEL
    canvas = np.full(((rows * height + _LEGEND) * _SCALE, columns * width * _SCALE, 3), 255, np.uint8)
    for i, (content, same) in enumerate(contents.items()):
        row, column = divmod(i, columns)
        _Panel(canvas, (column * width, row * height), same).draw(content)
    _legend(canvas, rows * height, reports)
    size = (canvas.shape[1] // _SCALE, canvas.shape[0] // _SCALE)
    return np.asarray(cv2.resize(canvas, size, interpolation=cv2.INTER_AREA), np.uint8)


class _Panel:
    """One content. Positions are pixels before scaling."""

    def __init__(self, canvas: NDArray[np.uint8], corner: Pixel, reports: Sequence[Report]) -> None:
        self._canvas, self._reports = canvas, reports
        self._lines = _curves(reports)
        self._dots = [(r["fidelity"]["mean"], r["speedup"]) for r in reports]
        everything = [*self._dots, *(point for line in self._lines.values() for point in line)]
        self._x = _axis([_spread(f) for f, _ in everything], [_spread(f) for f in _FIDELITIES])
        self._y = _axis([math.log(s) for _, s in everything], [math.log(s) for s in _SPEEDUPS])
        left, top, right, bottom = _MARGIN
        self._left, self._right = corner[0] + left, corner[0] + _PANEL[0] - right
        self._top, self._bottom = corner[1] + top, corner[1] + _PANEL[1] - bottom

    def draw(self, title: str) -> None:
        self._axes()
        for name, line in self._lines.items():
            for a, b in pairwise(front(line)):
                _line(self._canvas, self._at(a), self._at(b), _COLOURS[name], 2)
            for point in line:
                _dot(self._canvas, self._at(point), 4, _COLOURS[name])
        for dot in self._dots:
            _dot(self._canvas, self._at(dot), 5, _OURS)
        mean = (float(np.mean([f for f, _ in self._dots])), geometric_mean([s for _, s in self._dots]))
        _dot(self._canvas, self._at(mean), 10, _OURS, filled=False)
        clips = f"{len(self._reports)} clip{'s' * (len(self._reports) > 1)}"
        heading = f"{title}, {clips}: speed-up {mean[1]:.2f} at fidelity {mean[0]:.4f}"
        _text(self._canvas, heading, (self._left, self._top - 14), 0.55)

    def _axes(self) -> None:
        for fidelity in _FIDELITIES:
            x, _ = self._at((fidelity, 1))
            if self._left <= x <= self._right:
                _line(self._canvas, (x, self._top), (x, self._bottom), _GRID, 1)
                _text(self._canvas, f"{fidelity:g}", (x, self._bottom + 18), 0.42, centred=True)
        for speedup in _SPEEDUPS:
            _, y = self._at((0.9, speedup))
            if self._top <= y <= self._bottom:
                _line(self._canvas, (self._left, y), (self._right, y), _GRID if speedup != 1 else _INK, 1)
                _text(self._canvas, f"{speedup:g}x", (self._left - 44, y + 5), 0.42)
        centre = (self._left + self._right) // 2
        _text(
            self._canvas,
            "mean fidelity to a full encode of every frame",
            (centre, self._bottom + 38),
            0.45,
            centred=True,
        )

    def _at(self, point: Point) -> Pixel:
        (x0, x1), (y0, y1) = self._x, self._y
        across, up = (_spread(point[0]) - x0) / (x1 - x0), (math.log(point[1]) - y0) / (y1 - y0)
        return round(self._left + across * (self._right - self._left)), round(
            self._bottom - up * (self._bottom - self._top)
        )


def _curves(reports: Sequence[Report]) -> dict[str, list[Point]]:
    """By rival, the mean (fidelity, speed-up) of each setting that every clip has been given."""
    found: dict[tuple[str, str], list[Point]] = {}
    for report in reports:
        settings = {(r["name"], str(r["setting"])): r for r in report["rivals"] if r["name"] in _COLOURS}
        for key, rival in settings.items():
            found.setdefault(key, []).append((rival["fidelity"]["mean"], rival["speedup"]))
    lines: dict[str, list[Point]] = {}
    for (name, _), points in found.items():
        if len(points) == len(reports):
            mean = float(np.mean([f for f, _ in points])), geometric_mean([s for _, s in points])
            lines.setdefault(name, []).append(mean)
    return lines


def _spread(fidelity: float) -> float:
    """0.9, 0.99 and 0.999 lie equally far apart; above 0.9995 all is one."""
    return -math.log10(max(5e-4, 1 - fidelity))


def _axis(values: Sequence[float], ticks: Sequence[float]) -> tuple[float, float]:
    """Ends that hold all values, a little apart from them, and at least two ticks."""
    low, high = min(values), max(values)
    low = min(low, max((t for t in ticks if t <= low), default=low))
    high = max(high, min((t for t in ticks if t >= high), default=high))
    room = 0.06 * max(high - low, 0.1)
    return low - room, high + room


def _legend(canvas: NDArray[np.uint8], top: int, reports: Sequence[Report]) -> None:
    named = dict.fromkeys(rival["name"] for report in reports for rival in report["rivals"])
    x, y = _MARGIN[0], top + 22
    for name, colour in [("stillwatch", _OURS), *((name, _COLOURS[name]) for name in named if name in _COLOURS)]:
        _dot(canvas, (x, y - 4), 6, colour)
        _text(canvas, name, (x + 14, y + 1), 0.5)
        x += 50 + 10 * len(name)


def _dot(canvas: NDArray[np.uint8], at: Pixel, radius: int, colour: Colour, *, filled: bool = True) -> None:
    thickness = cv2.FILLED if filled else 2 * _SCALE
    cv2.circle(canvas, (at[0] * _SCALE, at[1] * _SCALE), radius * _SCALE, colour, thickness, cv2.LINE_AA)


def _line(canvas: NDArray[np.uint8], a: Pixel, b: Pixel, colour: Colour, width: int) -> None:
    ends = [(x * _SCALE, y * _SCALE) for x, y in (a, b)]
    cv2.line(canvas, ends[0], ends[1], colour, width * _SCALE, cv2.LINE_AA)


def _text(canvas: NDArray[np.uint8], text: str, at: Pixel, size: float, *, centred: bool = False) -> None:
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, size * _SCALE
    width = cv2.getTextSize(text, font, scale, _SCALE)[0][0] if centred else 0
    cv2.putText(canvas, text, (at[0] * _SCALE - width // 2, at[1] * _SCALE), font, scale, _INK, _SCALE, cv2.LINE_AA)
