"""Our graphs against `transformers`: the same checkpoint folder, the same answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines_checkpoint import Size, write_checkpoint
from numpy.typing import NDArray

from engines.decoder import Decoder
from engines.export import export_model
from engines.manifest import Model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.preprocess import Preprocessor
from engines.text.sampling import Sampling

pytestmark = [pytest.mark.parity, pytest.mark.timeout(300)]
torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'stillwatch[train]'")
transformers = pytest.importorskip("transformers", reason="needs the train extra: pip install 'stillwatch[train]'")

QUESTION = "Is a red car on the street?"
PROMPT = "User:{image}{question}<end_of_utterance>\nAssistant:"
SIZES = {
    "grouped queries": Size(),
    "tied, factor 4": Size(merge=4, tied=True, kv_heads=4, dtype="F32"),
    "wide pictures": Size(image=112, heads=2, text_heads=6, kv_heads=1, layers=3),
}


@pytest.fixture(scope="module", params=SIZES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Any, Size]:
    torch.set_num_threads(1)
    folder, size = tmp_path_factory.mktemp("model"), SIZES[request.param]
    write_checkpoint(folder, size)
    model = export_model(folder, name="random", domain="noise", prompt=PROMPT)
    theirs, report = transformers.Idefics3ForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, local_files_only=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    return model, theirs.eval(), size


@pytest.fixture(scope="module")
def inputs(pair: tuple[Model, Any, Size]) -> dict[str, Any]:
    return processed(pair, picture(pair[2]))


def processed(pair: tuple[Model, Any, Size], *pictures: NDArray[np.uint8]) -> dict[str, Any]:
    """What Idefics3Processor makes of the question and of pictures that already have the model's size."""
    pytest.importorskip("PIL", reason="the processor of transformers needs it: pip install pillow")
    model, _, size = pair
    edge = {"longest_edge": size.image}
    images = transformers.Idefics3ImageProcessorPil(do_image_splitting=False, size=edge, max_image_size=edge)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(model.folder / "tokenizer.json"))
    processor = transformers.Idefics3Processor(images, tokenizer, image_seq_len=model.manifest.visual_tokens)
    text = PROMPT.replace("{image}", "<image>" * len(pictures)).replace("{question}", QUESTION)
    return dict(processor(text=[text], images=[list(pictures)], return_tensors="pt"))


def picture(size: Size, seed: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (size.image, size.image, 3), dtype=np.uint8)


def ours(pair: tuple[Model, Any, Size], seed: int = 1) -> NDArray[np.float32]:
    return OnnxEncoder(OnnxRuntime(pair[0], threads=1)).encode_full(picture(pair[2], seed))


def test_pixels(pair: tuple[Model, Any, Size], inputs: dict[str, Any]) -> None:
    model, _, size = pair
    unfolded = torch.nn.functional.unfold(inputs["pixel_values"][0], size.patch, stride=size.patch)[0].T
    np.testing.assert_allclose(Preprocessor(model.manifest).patches(picture(size)), unfolded, atol=1e-5)


def test_vision_features(pair: tuple[Model, Any, Size], inputs: dict[str, Any]) -> None:
    with torch.no_grad():
        theirs = pair[1].model.vision_model(inputs["pixel_values"][0]).last_hidden_state[0]
    np.testing.assert_allclose(ours(pair), theirs, atol=1e-4)


def test_visual_tokens(pair: tuple[Model, Any, Size], inputs: dict[str, Any]) -> None:
    with torch.no_grad():
        theirs = pair[1].get_image_features(inputs["pixel_values"]).pooler_output[0]
    np.testing.assert_allclose(Decoder(pair[0]).visual_tokens(ours(pair)), theirs, atol=1e-4)


def test_logits_and_prompt(pair: tuple[Model, Any, Size], inputs: dict[str, Any]) -> None:
    decoder = Decoder(pair[0])
    before, after = decoder._prompt.start(), decoder._prompt.rest(QUESTION)
    assert before + after == inputs["input_ids"][0].tolist()
    with torch.no_grad():
        logits = pair[1](**inputs).logits[0].numpy()
    context = decoder.look(ours(pair))
    np.testing.assert_allclose(context.logits, logits[len(before) - 1], atol=1e-4)
    reading = decoder._language.read_on(context.past, len(after))
    np.testing.assert_allclose(reading.read(decoder._language.embed(after))[0], logits[-1], atol=1e-4)


def test_greedy_text(pair: tuple[Model, Any, Size], inputs: dict[str, Any]) -> None:
    text = "".join(Decoder(pair[0]).generate(ours(pair), QUESTION, max_tokens=24))
    assert text == greedy(pair, inputs)
    assert text


def greedy(pair: tuple[Model, Any, Size], inputs: dict[str, Any]) -> str:
    with torch.no_grad():
        ids = pair[1].generate(**inputs, max_new_tokens=24, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(pair[0].folder / "tokenizer.json"))
    return str(tokenizer.decode(ids, skip_special_tokens=True))


def test_two_pictures(pair: tuple[Model, Any, Size]) -> None:
    """Before and now, in one turn, also where the first has been read already."""
    inputs = processed(pair, picture(pair[2], 2), picture(pair[2]))
    decoder = Decoder(pair[0])
    assert decoder._prompt.start(2) + decoder._prompt.rest(QUESTION) == inputs["input_ids"][0].tolist()
    then, now = ours(pair, 2), ours(pair)
    alone = decoder.look(then)
    both = decoder.look(now, before=then)
    assert decoder.tokens_read == both.length > alone.length
    with torch.no_grad():
        logits = pair[1](**inputs).logits[0, both.length - 1].numpy()
    np.testing.assert_allclose(both.logits, logits, atol=1e-4)
    assert np.abs(both.logits - decoder.look(then, before=now).logits).max() > 1e-2
    assert "".join(decoder.generate(both, QUESTION, max_tokens=24)) == greedy(pair, inputs)


@pytest.mark.parametrize(
    "sampling", [Sampling(temperature=0.7, top_k=9, top_p=0.8), Sampling(temperature=2.0, top_p=0.3)]
)
def test_sampling_probabilities(sampling: Sampling) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (40, 300)).astype(np.float32)
    scores = torch.from_numpy(logits) / sampling.temperature
    if sampling.top_k:
        scores = transformers.TopKLogitsWarper(sampling.top_k)(None, scores)
    scores = transformers.TopPLogitsWarper(sampling.top_p)(None, scores)
    ours = [sampling.probabilities(row) for row in logits]
    np.testing.assert_allclose(ours, scores.softmax(-1), atol=1e-5)


def test_a_checkpoint_saved_as_smolvlm(tmp_path: Path) -> None:
    """The younger name of the family: other class, same parameters."""
    config = transformers.SmolVLMConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 56,
            "patch_size": 14,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": 400,
            "hidden_size": 48,
            "intermediate_size": 80,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
            "rms_norm_eps": 1e-5,
        },
        scale_factor=2,
        image_token_id=5,
    )
    torch.manual_seed(0)
    write_checkpoint(tmp_path)
    (tmp_path / "config.json").unlink()
    theirs = transformers.SmolVLMForConditionalGeneration(config).eval().to(torch.bfloat16)
    theirs.generation_config.eos_token_id = 7
    theirs.save_pretrained(tmp_path)
    model = export_model(tmp_path, name="random", domain="noise", prompt=PROMPT)
    assert model.manifest.dtype == "bfloat16"
    size = Size()
    features = OnnxEncoder(OnnxRuntime(model, threads=1)).encode_full(picture(size))
    pixels = Preprocessor(model.manifest).patches(picture(size)).reshape(4, 4, 3, 14, 14)
    pixels = torch.from_numpy(pixels.transpose(2, 0, 3, 1, 4).reshape(1, 3, 56, 56))
    with torch.no_grad():
        expected = theirs.float().model.vision_model(pixels).last_hidden_state[0]
    np.testing.assert_allclose(features, expected, atol=1e-4)
    decoder = Decoder(model)
    rows = torch.randn(1, 6, 48)
    with torch.no_grad():
        logits = theirs.lm_head(theirs.model.text_model(inputs_embeds=rows).last_hidden_state)[0, -1]
    reading = decoder._language.read_on(decoder._language.nothing, 6)
    np.testing.assert_allclose(reading.read(rows[0].numpy())[0], logits, atol=1e-4)
