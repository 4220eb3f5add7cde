"""The model that comes with Stillwatch: what it weighs, what it knows, and that transformers says the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.capture.scene import random_still
from engines.decoder import Decoder
from engines.manifest import REFERENCE, Model, load_model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.preprocess import Preprocessor
from scripts.training.evaluation import evaluate

ASKED = ("Describe the scene.", "Is there a car?", "What is on the left?", "How many people are there?")


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(REFERENCE)


def test_it_is_one_weight_file_and_no_more_than_25_megabytes(model: Model) -> None:
    assert list(model.manifest.weights) == ["model.safetensors"]
    assert sum(file.stat().st_size for file in REFERENCE.iterdir()) <= 25e6
    graphs = {graph.file for graph in model.manifest.graphs.values()}
    assert all((REFERENCE / file).stat().st_size < 100_000 for file in graphs), "a graph carries weights of its own"


def test_it_knows_rendered_scenes_it_has_never_seen(tmp_path: Path) -> None:
    """A small sample of what `scripts/train-reference --evaluate` measures on 500 pictures; the bounds leave room for
    its size."""
    found = evaluate(frames=25, seed=2, data=tmp_path)
    assert found["presence_f1"] >= 0.8
    assert found["yes_no_accuracy"] >= 0.88
    assert found["colour_accuracy"] >= 0.8


@pytest.mark.parity
@pytest.mark.timeout(600)
def test_transformers_gives_the_same_answers(model: Model) -> None:
    torch = pytest.importorskip("torch", reason="needs the train extra")
    transformers = pytest.importorskip("transformers", reason="needs the train extra")
    processor = transformers.AutoProcessor.from_pretrained(REFERENCE, local_files_only=True)
    network = transformers.AutoModelForImageTextToText.from_pretrained(
        REFERENCE, local_files_only=True, dtype=torch.float32
    ).eval()
    encoder, decoder = OnnxEncoder(OnnxRuntime(model, spin=False)), Decoder(model, spin=False)
    preprocessor = Preprocessor(model.manifest)
    for seed in range(3):
        image, _, _ = random_still(np.random.default_rng((77, seed)))
        picture = preprocessor.picture(image)
        features = encoder.encode_full(picture)
        pixels = processor.image_processor(picture, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            theirs = network.model.vision_model(pixels[0]).last_hidden_state[0].numpy()
        assert np.abs(features - theirs).max() <= 1e-3 * np.abs(theirs).max()
        for ask in ASKED:
            said = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": ask}]}]
            prompt = processor.apply_chat_template(said, add_generation_prompt=True)
            inputs = processor(text=prompt, images=[picture], return_tensors="pt")
            with torch.no_grad():
                ids = network.generate(**inputs, max_new_tokens=64, do_sample=False)
            text = processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]
            assert "".join(decoder.generate(features, ask, max_tokens=64)).strip() == text.strip()
