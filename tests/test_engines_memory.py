"""Memory of the selective encoder: what a camera's cache takes, and that no frame takes as much again."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from engines_checkpoint import Size, write_checkpoint

from engines.export import export_model
from engines.export.vision import CacheType
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.plan import EncodePlan, Mode

SIZE = Size(image=224, patch=14, dim=128, layers=24, heads=2, inner=128)
TOKENS = (SIZE.image // SIZE.patch) ** 2
STATUS = Path("/proc/self/status")
BYTES = {"float32": 4, "float16": 2}


@pytest.fixture(scope="module", params=BYTES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[OnnxEncoder, CacheType]:
    folder = tmp_path_factory.mktemp("model")
    write_checkpoint(folder, SIZE)
    model = export_model(folder, name="random", domain="noise", prompt="{image}{question}", cache=request.param)
    return OnnxEncoder(OnnxRuntime(model, threads=1)), request.param


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIZE.image, SIZE.image, 3), dtype=np.uint8)


def few(seed: int) -> EncodePlan:
    """A dozen tokens and two coarse cells."""
    slots = np.random.default_rng(seed).permutation(TOKENS // 2)[:12] + TOKENS // 2
    return EncodePlan(Mode.WARPING, np.sort(slots), None, coarse=np.array([0, 2]))


def peak_kib() -> int:
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))


def test_the_cache_holds_two_numbers_for_each_token_dimension_and_layer(made: tuple[OnnxEncoder, CacheType]) -> None:
    encoder, cache = made
    assert encoder.cache_bytes == 2 * TOKENS * SIZE.dim * SIZE.layers * BYTES[cache]


def test_half_precision_keeps_the_features(made: tuple[OnnxEncoder, CacheType]) -> None:
    encoder, cache = made
    encoder.encode(picture(1), EncodePlan(Mode.FULL, None))
    everything = EncodePlan(Mode.WARPING, np.arange(TOKENS))
    encoder.crossover = TOKENS + 1
    selected = encoder.encode(picture(2), everything).features
    np.testing.assert_allclose(selected, encoder.encode_full(picture(2)), atol=1e-4 if cache == "float32" else 0.02)


def measured(work: Callable[[], None]) -> tuple[int, int]:
    """Bytes that Python allocated at most, and bytes by which the process grew at most, while it ran."""
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_kib()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1], 1024 * (peak_kib() - before)
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's peak of resident memory")
def test_no_frame_allocates_as_much_as_the_cache(made: tuple[OnnxEncoder, CacheType]) -> None:
    encoder, _ = made
    pictures = [picture(seed) for seed in range(8)]
    encoder.encode(pictures[0], EncodePlan(Mode.FULL, None))

    def frames() -> None:
        for seed, shown in enumerate(pictures):
            encoder.encode(shown, few(seed))

    traced, grown = measured(frames)
    assert traced < encoder.cache_bytes / 10
    assert grown < encoder.cache_bytes / 2
