"""Memory of the selective encoder: what a camera's cache takes, and that no frame takes as much again."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from engines_checkpoint import Size, write_checkpoint
from numpy.typing import NDArray

from engines.export import export_model
from engines.manifest import Model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.pair import OnnxPair
from engines.onnx.runtime import OnnxRuntime
from engines.plan import EncodePlan, Mode

SIZE = Size(image=448, patch=14, dim=128, layers=24, heads=2, inner=128)
TOKENS = (SIZE.image // SIZE.patch) ** 2
STATUS = Path("/proc/self/status")
BYTES = {"float32": 4, "float16": 2}
FULL = EncodePlan(Mode.FULL, None)


@pytest.fixture(scope="module", params=BYTES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("model")
    write_checkpoint(folder, SIZE)
    return export_model(folder, name="random", domain="noise", prompt="{image}{question}", cache=request.param)


def picture(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (SIZE.image, SIZE.image, 3), dtype=np.uint8)


def few(seed: int) -> EncodePlan:
    """A dozen tokens and two coarse cells."""
    slots = np.random.default_rng(seed).permutation(TOKENS // 2)[:12] + TOKENS // 2
    return EncodePlan(Mode.WARPING, np.sort(slots), None, coarse=np.array([0, 2]))


def peak_kib() -> int:
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))


def test_the_cache_holds_two_numbers_for_each_token_dimension_and_layer(model: Model) -> None:
    encoder = OnnxEncoder(OnnxRuntime(model, threads=1))
    expected = 2 * TOKENS * SIZE.dim * SIZE.layers * BYTES[model.manifest.cache]
    assert encoder.cache_bytes == model.manifest.cache_bytes == expected


def test_half_precision_keeps_the_features(model: Model) -> None:
    encoder = OnnxEncoder(OnnxRuntime(model, threads=1))
    encoder.encode(picture(1), FULL)
    everything = EncodePlan(Mode.WARPING, np.arange(TOKENS))
    encoder.crossover = TOKENS + 1
    selected = encoder.encode(picture(2), everything).features
    atol = 1e-4 if model.manifest.cache == "float32" else 0.02
    np.testing.assert_allclose(selected, encoder.encode_full(picture(2)), atol=atol)


def measured(work: Callable[[], None]) -> tuple[int, int]:
    """Bytes that Python allocated at most, and bytes by which the process grew at most, while it ran."""
    ctypes.CDLL(None).malloc_trim(0)  # else it could grow unseen into what was freed before
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_kib()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1], 1024 * (peak_kib() - before)
    finally:
        tracemalloc.stop()


def growth(model: Model, cameras: int) -> tuple[int, int]:
    """Of eight frames after the first of each camera."""
    runtime = OnnxRuntime(model, threads=1)
    encoders = [OnnxEncoder(runtime) for _ in range(cameras)]
    pair = OnnxPair(runtime, *encoders) if cameras == 2 else None
    pictures = [picture(seed) for seed in range(8)]
    for encoder in encoders:
        encoder.encode(pictures[0], FULL)

    def frames() -> None:
        for seed, shown in enumerate(pictures):
            if pair is not None:
                pair.encode((shown, shown), (few(seed), few(seed + 1)))
            else:
                encoders[0].encode(shown, few(seed))

    return measured(frames)


@pytest.mark.skipif(
    not (os.access("/proc/self/clear_refs", os.W_OK) and hasattr(ctypes.CDLL(None), "malloc_trim")),
    reason="needs Linux's peak of resident memory, and glibc",
)
@pytest.mark.parametrize("cameras", [1, 2])
def test_no_frame_allocates_as_much_as_the_cache(model: Model, cameras: int) -> None:
    """In a process of its own: other threads of this one, and what it has freed, would count."""
    with multiprocessing.get_context("spawn").Pool(1) as alone:
        traced, grown = alone.apply(growth, (model, cameras))
    assert traced < model.manifest.cache_bytes / 10
    assert grown < model.manifest.cache_bytes / 3
