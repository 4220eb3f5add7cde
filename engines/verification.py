"""Does a model folder do what it should? Checks that need nothing but the runtime, and the report of an import.

verification.json says what was compared when the model was imported, with what outcome, and what was left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from config.errors import ModelError
from engines.decoder import Decoder
from engines.manifest import Model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.plan import EncodePlan, Mode

REPORT = "verification.json"
QUESTION = "What is in the picture?"
EXACT = 1e-3  # largest error in proportion to the largest value, where only the order of additions differs
ROUNDED = 0.999  # least cosine after weights, or keys and values, were rounded to half precision
FIDELITY = 0.995  # least mean cosine of features after quantisation
_THREADS = min(8, os.cpu_count() or 1)


def read_report(folder: Path) -> dict[str, Any] | None:
    """What the import of a model compared; None for a model that wasn't imported. Raises ModelError."""
    try:
        return dict(json.loads((folder / REPORT).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / REPORT}: can't be read ({error}); import the model again") from error


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison. relative_error: largest difference over largest value; cosine: of corresponding rows, the mean;
    both None where texts or ids are compared. limit: in words, what had to hold."""

    name: str
    relative_error: float | None
    cosine: float | None
    limit: str
    passed: bool

    def __str__(self) -> str:
        numbers = [
            f"{label} {value:.3g}" if label == "error" else f"{label} {value:.6f}"
            for label, value in (("error", self.relative_error), ("cosine", self.cosine))
            if value is not None
        ]
        return f"{self.name}: {', '.join([*numbers, 'as expected' if self.passed else 'NOT ' + self.limit])}"


def pictures(size: int, count: int = 4) -> list[NDArray[np.uint8]]:
    """Drawn pictures (size, size, 3): a shaded ground, shapes, some noise. The same ones every time."""
    rng = np.random.default_rng(7)
    drawn = []
    for _ in range(count):
        ground = np.linspace(rng.integers(0, 256, 3), rng.integers(0, 256, 3), size)[:, None].repeat(size, 1)
        picture = np.ascontiguousarray(ground + rng.normal(0, 6, (size, size, 3))).clip(0, 255).astype(np.uint8)
        for _ in range(6):
            (x, y), colour = rng.integers(0, size, 2).tolist(), rng.integers(0, 256, 3).tolist()
            width, height = rng.integers(size // 16, size // 3, 2).tolist()
            cv2.rectangle(picture, (x, y), (x + width, y + height), colour, -1)
            cv2.circle(picture, (y, x), width // 2, colour[::-1], -1)
        drawn.append(picture)
    return drawn


def encoder_of(model: Model) -> OnnxEncoder:
    return OnnxEncoder(OnnxRuntime(model, threads=_THREADS, spin=False))


def decoder_of(model: Model) -> Decoder:
    return Decoder(model, threads=_THREADS, spin=False)


def features_of(model: Model) -> list[NDArray[np.float32]]:
    """Features (T, D) of every drawn picture."""
    encoder = encoder_of(model)
    return [encoder.encode_full(picture) for picture in pictures(model.manifest.image_size)]


def own_checks(model: Model, *, suffix: str = "") -> list[Check]:
    """What can be told without another implementation: every graph loads and runs, and selecting gives what a full
    encode gives. suffix: of the names of the checks. Raises ModelError when a graph can't be loaded, EngineFault when
    one fails."""
    for graph in {graph.file: name for name, graph in model.manifest.graphs.items()}.values():
        OnnxRuntime(model, threads=_THREADS).session(graph)  # one at a time, those of other runtimes too
    first, second = pictures(model.manifest.image_size, 2)
    encoder = encoder_of(model)
    encoder.crossover = model.manifest.tokens + 1  # so that selecting everything isn't done in full
    everything = np.arange(model.manifest.tokens, dtype=np.int64)
    full = encoder.encode_full(second)
    encoder.encode(first, EncodePlan(Mode.FULL, None))
    selected = encoder.encode(second, EncodePlan(Mode.HIERARCHICAL_DIFF, everything)).features.copy()
    again = encoder.encode(second, EncodePlan(Mode.HIERARCHICAL_DIFF, everything[::3])).features
    agree = close if model.manifest.cache == "float32" else alike  # keys and values themselves are rounded
    checks = [
        agree(f"selective encoding of every token = full encoding{suffix}", selected, full),
        agree(f"selective encoding of a third of an unchanged picture = full encoding{suffix}", again, full),
    ]
    del encoder  # both at once may not fit
    decoder = decoder_of(model)
    logits = decoder.look(full).logits
    for _ in decoder.generate(full, QUESTION, max_tokens=4):  # raises when a graph of the language model fails
        pass
    checks.append(
        Check(f"a question is answered{suffix}", None, None, "finite logits", bool(np.isfinite(logits).all()))
    )
    return checks


def fidelity(before: Sequence[NDArray[np.float32]], after: Sequence[NDArray[np.float32]]) -> Check:
    """Mean cosine between features before and after quantisation."""
    cosine = float(np.mean([_cosine(a, b) for a, b in zip(after, before, strict=True)]))
    return Check("features in 8 bits against those before", None, cosine, f"cosine ≥ {FIDELITY}", cosine >= FIDELITY)


def close(name: str, ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> Check:
    """Rows (n, d) that must agree but for rounding."""
    error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    return Check(name, error, _cosine(ours, theirs), f"error ≤ {EXACT:g}", error <= EXACT)


def alike(name: str, ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> Check:
    """Rows (n, d) that must point the same way."""
    error, cosine = float(np.abs(ours - theirs).max() / np.abs(theirs).max()), _cosine(ours, theirs)
    return Check(name, error, cosine, f"cosine ≥ {ROUNDED}", cosine >= ROUNDED)


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    x, y = a.astype(np.float64), b.astype(np.float64)
    return float(((x * y).sum(-1) / np.maximum(np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1), 1e-12)).mean())
