"""How an engine is to be built: precision, row counts, workspace."""

from __future__ import annotations

from enum import Enum

from config.errors import EngineFault
from engines.manifest import Manifest
from engines.tensorrt.releases import Release

MIB = 1 << 20
_SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
READ_AT_ONCE = (1, 8, 32, 128, 256)
"""Row counts of the language model: a word of an answer, a question, a picture or some questions side by side."""
ANSWERS = 64
"""Logits that one run gives at most: those of questions side by side, or of an answer that is guessed."""
_TEXT = 512


class Precision(str, Enum):
    """What the builder may compute in, and what keys and values are kept in."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"

    @property
    def cache_bytes(self) -> int:
        """Bytes of one number of the cache."""
        return 4 if self is Precision.FP32 else 2


def precisions(wanted: str | None, release: Release, capability: tuple[int, int]) -> tuple[Precision, ...]:
    """What to try, best first; each is refused if its outputs stray. wanted: None = all that device and release can do.
    Raises EngineFault for what they can't.

    FP16 comes before BF16, which rounds to eight bits where FP16 keeps eleven, but goes on where values pass 65504. FP8
    (Thor) is not among them: TensorRT uses it only where the graph itself quantises, which ours don't.
    """
    if not release.precision_flags:
        able = [Precision.FP32]
    else:
        able = [Precision.FP16, Precision.FP32]
        if release.bf16 and capability >= (8, 0):
            able.insert(1, Precision.BF16)
    if wanted is None:
        return tuple(able)
    if wanted not in [precision.value for precision in able]:
        raise EngineFault(
            f"precision {wanted}: this TensorRT on compute capability {capability[0]}.{capability[1]} offers "
            f"{', '.join(precision.value for precision in able)} for this model"
        )
    return (Precision(wanted),)


def buckets(manifest: Manifest) -> tuple[int, ...]:
    """Row counts for which the selective engine is built, ascending: the manifest's, else shares of all tokens in whole
    eights. A profile a count, each of that count alone, so that every shape is fixed when the engine is built."""
    if manifest.select_buckets:
        return manifest.select_buckets
    eights = {min(manifest.tokens, max(8, -(-round(manifest.tokens * share) // 8) * 8)) for share in _SHARES}
    return tuple(sorted(eights))


def text_slots(manifest: Manifest) -> int:
    """Slots of the language model's cache: two pictures, and what is said of them. Longer texts are read elsewhere."""
    return -(-(2 * manifest.visual_tokens + _TEXT) // 256) * 256


def workspace_bytes(free: int) -> int:
    """Scratch that the builder may use, from the memory that is free now: half, at least 64 MiB, at most 2 GiB. On a
    Jetson it is the same memory that cameras and processes use."""
    return max(64 * MIB, min(2048 * MIB, free // 2))
