"""The cost curve of an encoder: milliseconds and speed-up against a full encode, by the share of tokens that is dirty.

Every round encodes one picture in full and for each share, so that whatever else the machine does hits all alike;
medians over rounds. Each is done twice in a row, and the second time counts: a camera's frames come with like shares,
one after the other. What is measured is `encode` as the coherent path calls it, gathering of patches included; past the
measured crossover it takes the full graph itself. Small shares are also measured for two cameras: side by side, each
from a thread of its own as the agent runs them, and in one pass.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from config.errors import ConfigError
from engines.cost import encode_cost
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.pair import OnnxPair
from engines.onnx.runtime import OnnxRuntime, fastest
from engines.plan import EncodePlan, Mode
from engines.random_tower import TOWERS, model_or_tower

PERCENTS = (1, 2, 5, 10, 25, 50, 75, 100)
PAIRED = (1, 2, 5, 10)
DEFAULT_TOWERS = ("reference", *TOWERS)
_IN_A_ROW = 3
"""Encodes of each camera side by side, so that handing over to another thread doesn't count for much."""
_LEAST_ROUNDS, _MOST_ROUNDS = 5, 200

Clock = Callable[[], float]
Progress = Callable[[str], None]


def bench_engine(
    towers: Sequence[str] = DEFAULT_TOWERS,
    *,
    threads: int = 2,
    seconds: float = 45.0,
    progress: Progress = lambda text: None,
    clock: Clock = time.perf_counter,
) -> dict[str, Any]:
    """Measure each tower (a model's name or folder, or one of `TOWERS`) for about so many seconds: at least five
    rounds, at most 200. Raises ModelError, EngineFault."""
    measured = []
    for name in towers:
        progress(f"{name}: getting ready")
        with model_or_tower(name) as model:
            runtime = fastest(model, threads, clock)
            measured.append(_curve(name, runtime, seconds, progress, clock))
    return {"threads": threads, "cores": os.cpu_count(), "towers": measured}


def _curve(name: str, runtime: OnnxRuntime, seconds: float, progress: Progress, clock: Clock) -> dict[str, Any]:
    encoder, manifest = OnnxEncoder(runtime), runtime.model.manifest
    tokens = manifest.tokens
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (manifest.image_size, manifest.image_size, 3), dtype=np.uint8)
    full = EncodePlan(Mode.FULL, None)
    counts = {percent: max(1, round(tokens * percent / 100)) for percent in PERCENTS}
    plans = {
        percent: EncodePlan(Mode.WARPING, np.sort(rng.permutation(tokens)[:count])) for percent, count in counts.items()
    }
    encode_cost(encoder)
    other = OnnxEncoder(runtime)
    pair = OnnxPair(runtime, encoder, other)
    for plan in (full, *plans.values()):
        pair.encode((picture, picture), (plan, plan))
    full_ms: list[float] = []
    spent: dict[int, list[float]] = {percent: [] for percent in plans}
    paired: dict[int, list[float]] = {percent: [] for percent in PAIRED}
    beside: dict[int, list[float]] = {percent: [] for percent in PAIRED}
    end = clock() + seconds
    while len(full_ms) < _LEAST_ROUNDS or (clock() < end and len(full_ms) < _MOST_ROUNDS):
        full_ms.append(_timed(clock, encoder.encode, picture, full))
        for percent in map(int, rng.permutation(PERCENTS)):
            plan = plans[percent]
            spent[percent].append(_timed(clock, encoder.encode, picture, plan))
            if percent in PAIRED:
                paired[percent].append(_timed(clock, pair.encode, (picture, picture), (plan, plan)) / 2)
                beside[percent].append(_timed(clock, _side_by_side, (encoder, other), picture, plan) / 2 / _IN_A_ROW)
        progress(f"{name}: round {len(full_ms)}, {max(0, end - clock()):.0f} s left")
    curve = []
    for percent, ms in spent.items():
        ratios = np.array(full_ms) / np.array(ms)
        curve.append(
            {
                "dirty_percent": percent,
                "tokens": counts[percent],
                "ms": float(np.median(ms)),
                "speedup": float(np.median(full_ms) / np.median(ms)),
                "speedup_quartiles": [float(np.percentile(ratios, q)) for q in (25, 75)],
                "path": "full" if counts[percent] >= encoder.crossover else "selective",
                **(
                    {
                        "paired_ms": float(np.median(paired[percent])),
                        "side_by_side_ms": float(np.median(beside[percent])),
                    }
                    if percent in PAIRED
                    else {}
                ),
            }
        )
    return {
        "name": name,
        "tokens": tokens,
        "dim": manifest.dim,
        "layers": manifest.layers,
        "weights": manifest.dtype,
        "spin": runtime.spin,
        "full_ms": float(np.median(full_ms)),
        "crossover_tokens": encoder.crossover,
        "cache_bytes": encoder.cache_bytes,
        "rounds": len(full_ms),
        "curve": curve,
    }


def _side_by_side(encoders: tuple[OnnxEncoder, OnnxEncoder], picture: NDArray[np.uint8], plan: EncodePlan) -> None:
    def encode(encoder: OnnxEncoder) -> None:
        for _ in range(_IN_A_ROW):
            encoder.encode(picture, plan)

    one, other = encoders
    with ThreadPoolExecutor(1) as thread:
        going = thread.submit(encode, other)
        encode(one)
        going.result()


def _timed(clock: Clock, encode: Callable[..., object], *arguments: object) -> float:
    """Milliseconds of the second of two calls."""
    encode(*arguments)
    start = clock()
    encode(*arguments)
    return 1e3 * (clock() - start)


def render(report: dict[str, Any]) -> Table:
    """A row for each tower: milliseconds of a full encode, then speed-up by share of dirty tokens; and what two cameras
    gain in one pass, against one after the other and against side by side."""
    table = Table(title=f"Speed-up of a selective encode against a full one, {report['threads']} threads")
    for heading in ("tower", "tokens", "full ms", *(f"{percent} %" for percent in PERCENTS), "full from"):
        table.add_column(heading, justify="left" if heading == "tower" else "right")
    for tower in report["towers"]:
        points = [f"{point['speedup']:.3g}×" for point in tower["curve"]]
        size = [tower["name"], str(tower["tokens"]), f"{tower['full_ms']:.1f}"]
        table.add_row(*size, *points, f"{tower['crossover_tokens'] / tower['tokens']:.0%}")
        for against, kind in (("one after the other", "ms"), ("side by side", "side_by_side_ms")):
            gains = [f"{p[kind] / p['paired_ms'] - 1:+.0%}" if "paired_ms" in p else "" for p in tower["curve"]]
            table.add_row(f"  two in one pass, not {against}", "", "", *gains, "")
    return table


_SIZE, _MARGIN, _SCALE = (820, 520), (64, 34, 24, 56), 2  # width, height; left, top, right, bottom; drawn larger
_SPEEDUPS = (1, 2, 5, 10, 20, 50, 100)
_COLOURS = ((30, 30, 200), (190, 90, 30), (60, 140, 60), (150, 60, 150), (60, 140, 230), (120, 120, 120))


def write_chart(report: dict[str, Any], file: Path) -> None:
    """PNG of `draw`. Raises ConfigError when it can't be written."""
    _, content = cv2.imencode(".png", draw(report))
    try:
        file.write_bytes(content.tobytes())
    except OSError as error:
        raise ConfigError(f"--png {file}: can't be written: {error.strerror}") from None


def draw(report: dict[str, Any]) -> NDArray[np.uint8]:
    """uint8 (h, w, 3), BGR: speed-up by share of dirty tokens, both logarithmic, a line for each tower. The grey line
    is what a cost in proportion to the tokens would give."""
    width, height = _SIZE
    left, top, right, bottom = _MARGIN
    canvas = np.full((height * _SCALE, width * _SCALE, 3), 255, np.uint8)
    most = max(100.0, *(point["speedup"] for tower in report["towers"] for point in tower["curve"]))

    def at(percent: float, speedup: float) -> tuple[int, int]:
        across = left + (width - left - right) * math.log(percent) / math.log(100)
        down = height - bottom - (height - top - bottom) * math.log(max(speedup, 0.9) / 0.9) / math.log(most / 0.9)
        return round(across * _SCALE), round(down * _SCALE)

    def text(words: str, place: tuple[int, int], colour: tuple[int, int, int] = (40, 40, 40)) -> None:
        cv2.putText(canvas, words, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45 * _SCALE, colour, _SCALE, cv2.LINE_AA)

    for percent in PERCENTS:
        x, y = at(percent, 0.9)
        cv2.line(canvas, (x, y), at(percent, most), (228, 228, 228), _SCALE)
        text(f"{percent}", (x - 8 * _SCALE, y + 20 * _SCALE))
    for speedup in _SPEEDUPS:
        x, y = at(1, speedup)
        cv2.line(canvas, (x, y), at(100, speedup), (228, 228, 228), _SCALE)
        text(f"{speedup}x", (x - 42 * _SCALE, y + 5 * _SCALE))
    cv2.line(canvas, at(1, 100), at(100, 1), (170, 170, 170), _SCALE, cv2.LINE_AA)
    for i, tower in enumerate(report["towers"]):
        colour = _COLOURS[i % len(_COLOURS)]
        points = [at(point["dirty_percent"], point["speedup"]) for point in tower["curve"]]
        for a, b in pairwise(points):
            cv2.line(canvas, a, b, colour, 2 * _SCALE, cv2.LINE_AA)
        text(
            f"{tower['name']}: full {tower['full_ms']:.0f} ms", ((width - 300) * _SCALE, (60 + 22 * i) * _SCALE), colour
        )
    text("dirty tokens, percent", ((width // 2 - 70) * _SCALE, (height - 12) * _SCALE))
    text(f"speed-up against a full encode, {report['threads']} threads", (left * _SCALE, 20 * _SCALE))
    return np.asarray(cv2.resize(canvas, _SIZE, interpolation=cv2.INTER_AREA), np.uint8)
