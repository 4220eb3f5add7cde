"""8-bit weights: near enough, stored once, and a token's result is its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from engines_checkpoint import Size, write_checkpoint
from engines_rows import RowsEncoder
from numpy.typing import NDArray

from config.errors import ModelError
from engines.export import export_model
from engines.export.quantize import LARGEST, quantize, rounded
from engines.manifest import Model, load_model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.plan import EncodePlan, Mode

SIZE = Size(image=84, dim=96, inner=192, layers=3)
TOKENS = (SIZE.image // SIZE.patch) ** 2
FULL = EncodePlan(Mode.FULL, None)


@pytest.fixture(scope="module", params=["F16", "F32"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Model]:
    """A model before and after."""
    models = []
    for name in ("before", "after"):
        folder = tmp_path_factory.mktemp(name)
        write_checkpoint(folder, Size(**{**vars(SIZE), "dtype": request.param}))
        models.append(
            export_model(folder, name="random", domain="noise", prompt="{image}{question}", yes_no=(1.0, 0.5))
        )
    quantize(models[1].folder)
    return models[0], load_model(models[1].folder)


def encoder(model: Model) -> OnnxEncoder:
    return OnnxEncoder(OnnxRuntime(model, threads=1))


def picture(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (SIZE.image, SIZE.image, 3), dtype=np.uint8)


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))


def test_features_stay_near_those_of_the_weights_they_replace(pair: tuple[Model, Model]) -> None:
    before, after = (encoder(model).encode_full(picture(1)) for model in pair)
    assert cosines(before, after).min() > 0.998
    assert np.abs(before - after).max() > 1e-4, "nothing was rounded"


def test_weights_are_stored_once_and_the_rest_of_the_manifest_stays(pair: tuple[Model, Model]) -> None:
    before, after = pair
    sizes = [(model.folder / "model.safetensors").stat().st_size for model in pair]
    matrices = SIZE.layers * (4 * SIZE.dim**2 + 2 * SIZE.dim * SIZE.inner)
    width = {"float16": 2, "float32": 4}[before.manifest.dtype]
    assert sizes[0] - sizes[1] == pytest.approx((width - 1) * matrices, rel=0.1)
    assert after.manifest.dtype == "int8"
    unchanged = {"dtype", "weights"}
    assert after.manifest.model_dump(exclude=unchanged) == before.manifest.model_dump(exclude=unchanged)


def test_selecting_everything_is_a_full_encode(pair: tuple[Model, Model]) -> None:
    ours = encoder(pair[1])
    ours.crossover = TOKENS + 1
    ours.encode(picture(1), FULL)
    selected = ours.encode(picture(2), EncodePlan(Mode.WARPING, np.arange(TOKENS))).features
    np.testing.assert_allclose(selected, ours.encode_full(picture(2)), atol=1e-4)


def test_a_token_does_not_depend_on_which_others_are_encoded(pair: tuple[Model, Model]) -> None:
    """In the first layer, before it has looked at others, to the bit: the scale of its rounding is its own."""
    found = []
    for slots in ([7], [3, 7, 20, 31]):
        ours = encoder(pair[1])
        ours.encode(picture(1), FULL)
        ours.encode(picture(2), EncodePlan(Mode.WARPING, np.array(slots)))
        found.append(ours.cache[0, :, :, 7].copy())
    np.testing.assert_array_equal(found[0], found[1])


def test_the_form_for_tensorrt_takes_the_same_weights(pair: tuple[Model, Model]) -> None:
    assert cosines(RowsEncoder(pair[1]).encode_full(picture(1)), encoder(pair[1]).encode_full(picture(1))).min() > 0.998


def test_weights_that_are_8_bit_already_are_refused(pair: tuple[Model, Model]) -> None:
    before = (pair[1].folder / "model.safetensors").read_bytes()
    with pytest.raises(ModelError, match="8-bit weights already"):
        quantize(pair[1].folder)
    assert (pair[1].folder / "model.safetensors").read_bytes() == before


def test_rounding_is_within_half_a_step_and_an_output_of_zeros_stays_zero() -> None:
    weight = np.random.default_rng(0).normal(size=(6, 11)).astype(np.float32)
    weight[2] = 0
    codes, scale = rounded(weight)
    assert codes.shape == (11, 6) and np.abs(codes).max() == LARGEST
    assert np.abs(codes.T * scale[:, None] - weight).max() <= scale.max() / 2 + 1e-7
    assert not codes[:, 2].any()


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"manifest\.json: not found"):
        quantize(tmp_path)
