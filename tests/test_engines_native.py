"""The tower in C: beside the graph that it stands for, on many threads, and where there is none."""

from __future__ import annotations

import platform
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engines_checkpoint import Size, write_checkpoint
from numpy.typing import NDArray

from engines.export import export_model
from engines.manifest import Model, find_model, load_model
from engines.native import SOURCE, NativeTower, open_tower
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.plan import EncodePlan, Mode
from vpi_ops import native

FULL = EncodePlan(Mode.FULL, None)
ODD = Size(image=84, dim=96, heads=3, inner=100, layers=3)
"""36 tokens and 100 numbers fill no vector; heads of 32 numbers do."""


def picture(model: Model, seed: int) -> NDArray[np.uint8]:
    side = model.manifest.image_size
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def exported(folder: Path, size: Size) -> Model:
    write_checkpoint(folder, size)
    return export_model(folder, name="random", domain="noise", prompt="{image}{question}")


def both(model: Model, threads: int) -> tuple[OnnxEncoder, OnnxEncoder]:
    """An encoder with the tower in C, and one without."""
    runtimes = [OnnxRuntime(model, threads=threads, native=how) for how in (True, False)]
    if isinstance(native.opened(), str):
        pytest.skip(str(native.opened()))
    assert not isinstance(runtimes[0].tower, str), runtimes[0].tower
    found = OnnxEncoder(runtimes[0]), OnnxEncoder(runtimes[1])
    for encoder in found:
        encoder.crossover = model.manifest.tokens + 1
        encoder.encode(picture(model, 0), FULL)
    return found


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_it_agrees_with_the_graph_for_any_number_of_tokens(tmp_path: Path, threads: int) -> None:
    model = exported(tmp_path, ODD)
    ours, theirs = both(model, threads)
    rng = np.random.default_rng(1)
    for n in range(1, model.manifest.tokens + 1):
        plan = EncodePlan(Mode.WARPING, np.sort(rng.permutation(model.manifest.tokens)[:n]))
        image = picture(model, n)
        np.testing.assert_allclose(
            ours.encode(image, plan).features, theirs.encode(image, plan).features, rtol=0, atol=2e-4
        )
        np.testing.assert_allclose(ours.cache, theirs.cache, rtol=0, atol=2e-4)


def test_it_agrees_with_the_graph_on_the_reference_model() -> None:
    model = load_model(find_model("reference"))
    ours, theirs = both(model, 2)
    rng = np.random.default_rng(2)
    for n in (1, 13, 60, 240):
        fetch = np.roll(np.arange(model.manifest.tokens), int(rng.integers(1, 9)))
        plan = EncodePlan(Mode.WARPING, np.sort(rng.permutation(model.manifest.tokens)[:n]), fetch)
        image = picture(model, n)
        mine, graph = ours.encode(image, plan).features, theirs.encode(image, plan).features
        assert np.abs(mine - graph).max() < 1e-4 * np.abs(graph).max()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names options of compilers for x86-64")
@pytest.mark.parametrize("without", [("-mno-avx512f",), ("-mno-avx512f", "-mno-avx")])
def test_narrower_vectors_compute_the_same(tmp_path: Path, without: tuple[str, ...]) -> None:
    """Four floats wide is what ARM has."""
    (tmp_path / "model").mkdir()
    model = exported(tmp_path / "model", ODD)
    widest, _ = both(model, 1)
    narrow, _ = both(model, 1)
    source = replace(SOURCE, options=(*SOURCE.options, *without))
    library = native.load(native.find_compiler(), tmp_path / "cache", source)
    narrow._select = NativeTower(library, model, 2).encode
    for n in (1, 7, 36):
        plan = EncodePlan(Mode.WARPING, np.arange(n))
        expected = widest.encode(picture(model, n), plan).features
        np.testing.assert_allclose(narrow.encode(picture(model, n), plan).features, expected, rtol=0, atol=2e-4)


def test_cameras_on_threads_of_their_own_get_what_they_get_alone(tmp_path: Path) -> None:
    model = exported(tmp_path, ODD)
    alone, _ = both(model, 2)
    runtime = OnnxRuntime(model, threads=3)
    plans = [EncodePlan(Mode.WARPING, np.arange(1 + n % 20, 2 + n % 20 + n % 4)) for n in range(60)]
    expected = [alone.encode(picture(model, n), plan).features.copy() for n, plan in enumerate(plans)]
    apart: list[float] = []

    def work() -> None:
        encoder = OnnxEncoder(runtime)
        encoder.crossover = model.manifest.tokens + 1
        encoder.encode(picture(model, 0), FULL)
        for n, plan in enumerate(plans):
            found = encoder.encode(picture(model, n), plan).features
            apart.append(float(np.abs(found - expected[n]).max()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(apart) == 4 * len(plans)
    assert max(apart) < 1e-4


@pytest.mark.parametrize(
    ("size", "why"), [(replace(ODD, dim=36), "heads of 12 numbers"), (replace(ODD, dtype="BF16"), None)]
)
def test_what_it_has_no_code_for_goes_through_the_graph(tmp_path: Path, size: Size, why: str | None) -> None:
    model = exported(tmp_path, size)
    if isinstance(native.opened(), str):
        pytest.skip(str(native.opened()))
    tower = OnnxRuntime(model, threads=1).tower
    assert (why in tower) if isinstance(tower, str) and why else (why is None and not isinstance(tower, str))
    encoder = OnnxEncoder(OnnxRuntime(model, threads=1))
    encoder.encode(picture(model, 0), FULL)
    assert encoder.encode(picture(model, 1), EncodePlan(Mode.WARPING, np.arange(3))).encoded == 3


def test_one_that_computes_something_else_is_not_taken(tmp_path: Path) -> None:
    model = exported(tmp_path, ODD)
    if isinstance(native.opened(), str):
        pytest.skip(str(native.opened()))
    session = OnnxRuntime(model, threads=1, native=False).session("encode_full_fused")

    def truth(patches: NDArray[np.float32]) -> NDArray[np.float32]:
        return session.run(["features"], {"patches": patches})[0]  # type: ignore[no-any-return]

    assert not isinstance(open_tower(model, 2, truth), str)
    found = open_tower(model, 2, lambda patches: truth(patches) * 1.01)
    assert isinstance(found, str)
    assert "other features" in found
