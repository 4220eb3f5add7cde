"""Does a built engine give what ONNX Runtime gives? Asked once, before its first use."""

from __future__ import annotations

import numpy as np

from engines.manifest import Manifest
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.language import LanguageModel
from engines.onnx.runtime import OnnxRuntime
from engines.plan import EncodePlan, Mode
from engines.tensorrt.encoder import TensorRtEncoder
from engines.tensorrt.language import TensorRtLanguage
from engines.tensorrt.recipe import ANSWERS
from engines.tensorrt.runtime import TensorRtRuntime
from engines.verification import Check, alike, pictures


def compare(runtime: TensorRtRuntime) -> list[Check]:
    """A full encode, then every row count once, each upon the cache that the one before left. Features of what was
    encoded must have a mean cosine of at least 0.999; NaN has none. Raises EngineFault."""
    manifest = runtime.model.manifest
    theirs = OnnxEncoder(OnnxRuntime(runtime.model, threads=2, spin=False))
    ours = TensorRtEncoder(runtime, refresh=False)
    theirs.crossover = ours.crossover = manifest.tokens + 1  # so that all tokens at once are selected as well
    drawn = pictures(manifest.image_size, 1 + len(runtime.rows))
    try:
        checks = []
        for picture, (name, plan) in zip(drawn, _plans(manifest, runtime.rows), strict=True):
            slots = slice(None) if plan.dirty is None else plan.dirty
            found, expected = (encoder.encode(picture, plan).features[slots] for encoder in (ours, theirs))
            checks.append(alike(f"{name} on TensorRT ({runtime.precision.value})", found, expected))
        return checks
    finally:
        ours.close()


def _plans(manifest: Manifest, rows: tuple[int, ...]) -> list[tuple[str, EncodePlan]]:
    rng = np.random.default_rng(11)
    plans = [("full encoding", EncodePlan(Mode.FULL, None))]
    for count in rows:
        slots = np.sort(rng.permutation(manifest.tokens)[:count])
        plans.append((f"selective encoding of {count} rows", EncodePlan(Mode.HIERARCHICAL_DIFF, slots)))
    return plans


def compare_language(runtime: TensorRtRuntime) -> list[Check]:
    """Every row count once, each going on from what the one before has read, from the longest to the step of an answer.
    Logits, less their mean, must have a mean cosine of at least 0.999; NaN has none. Raises EngineFault."""
    host = OnnxRuntime(runtime.model, threads=2, spin=False)
    theirs, ours = LanguageModel(host), TensorRtLanguage(runtime, host)
    rng = np.random.default_rng(11)
    features = OnnxEncoder(host).encode_full(pictures(runtime.model.manifest.image_size, 1)[0])
    words = theirs.embed(rng.integers(0, theirs.vocabulary, sum(runtime.rows)))
    rows = np.concatenate([theirs.visual_tokens(features), words])
    try:
        both = [language.read_on(language.nothing, len(rows)) for language in (ours, theirs)]
        checks, start = [], 0
        for count in reversed(runtime.rows):
            some, asked = rows[start : start + count], [*range(count)][-ANSWERS:]
            found, expected = (each.read(some, answer=asked) for each in both)
            name = f"reading {count} rows on TensorRT ({runtime.precision.value})"
            checks.append(alike(name, *(logits - logits.mean(axis=1, keepdims=True) for logits in (found, expected))))
            start += count
        return checks
    finally:
        ours.close()
