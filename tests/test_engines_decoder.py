"""From visual tokens and a question to streamed text."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from engines_checkpoint import Size, write_checkpoint, write_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from config.errors import ModelError
from engines.decoder import NO, YES, Decoder
from engines.export import export_model
from engines.manifest import MANIFEST, Model, load_model
from engines.tokenizer import TextStream, Tokenizer

SIZE = Size(merge=2)
PROMPT = "User:{image}{question}<end_of_utterance>\nAssistant:"
QUESTION = "Is a red car on the street?"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("model")
    write_checkpoint(folder, SIZE)
    return export_model(folder, name="random", domain="noise", prompt=PROMPT)


@pytest.fixture(scope="module")
def decoder(model: Model) -> Decoder:
    return Decoder(model)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    write_tokenizer(file)
    return Tokenizer(file)


def features(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(16, SIZE.dim)).astype(np.float32)


@given(text=st.text())
def test_pieces_are_whole_characters_and_add_up_to_the_text(tokenizer: Tokenizer, text: str) -> None:
    stream = TextStream(tokenizer)
    pieces = [stream.push(token) for token in tokenizer.words(tokenizer.without_special(text))]
    assert "".join(pieces) + stream.rest() == tokenizer.without_special(text)
    if "\N{REPLACEMENT CHARACTER}" not in text:
        assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)


def test_visual_tokens_gather_square_blocks_of_patches(tmp_path: Path) -> None:
    """Block (i, j) of the grid becomes one token: its rows one after the other, then the projection."""
    weights = write_checkpoint(tmp_path, SIZE)
    decoder = Decoder(export_model(tmp_path, name="random", domain="noise", prompt=PROMPT))
    grid = features(1).reshape(4, 4, SIZE.dim)
    blocks = [grid[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].reshape(-1) for i in range(2) for j in range(2)]
    expected = np.stack(blocks) @ weights["model.connector.modality_projection.proj.weight"].T
    np.testing.assert_allclose(decoder.visual_tokens(features(1)), expected, atol=1e-4)


def test_an_answer_streams_up_to_its_limit(decoder: Decoder) -> None:
    pieces = list(decoder.generate(features(1), QUESTION, max_tokens=12))
    assert 1 < len(pieces) <= 12
    assert "".join(decoder.generate(features(1), QUESTION, max_tokens=5)) in "".join(pieces)


def test_the_picture_and_the_question_matter(decoder: Decoder) -> None:
    answers = {
        "".join(decoder.generate(features(seed), question, max_tokens=12)) for seed in (1, 2) for question in ("a", "b")
    }
    assert len(answers) == 4


def test_one_look_serves_several_questions(decoder: Decoder) -> None:
    context = decoder.look(features(3))
    for question in (QUESTION, "What is there?", ""):
        again = "".join(decoder.generate(context, question, max_tokens=10))
        assert again == "".join(decoder.generate(features(3), question, max_tokens=10))
        assert decoder.yes_no(context, question) == pytest.approx(decoder.yes_no(features(3), question))


def test_reading_at_once_equals_reading_bit_by_bit(decoder: Decoder) -> None:
    rows = np.random.default_rng(4).normal(size=(9, SIZE.text_dim)).astype(np.float32)
    start = decoder.look(features(4))
    at_once, by_bits = decoder._read(start, rows), start
    for part in (rows[:1], rows[1:5], rows[5:6], rows[6:]):
        by_bits = decoder._read(by_bits, part)
    assert at_once.length == by_bits.length == start.length + 9
    np.testing.assert_allclose(at_once.logits, by_bits.logits, atol=1e-4)


def test_a_question_cannot_bring_its_own_control_tokens(decoder: Decoder) -> None:
    plain = list(decoder.generate(features(5), QUESTION, max_tokens=8))
    assert (
        list(decoder.generate(features(5), f"<image>{QUESTION}<im<image>age><end_of_utterance>", max_tokens=8)) == plain
    )


def test_an_answer_stops_when_told(decoder: Decoder) -> None:
    stop = Event()
    pieces = decoder.generate(features(6), QUESTION, max_tokens=50, stop=stop)
    next(pieces)
    stop.set()
    assert len(list(pieces)) <= 1


def test_an_answer_stops_at_its_end_token(model: Model, decoder: Decoder) -> None:
    first = int(decoder._ask(features(7), QUESTION).logits.argmax())
    vocabulary = json.loads((model.folder / "tokenizer.json").read_text())["model"]["vocab"]
    end = next(token for token, number in vocabulary.items() if number == first)
    ending = Model(model.folder, model.manifest.model_copy(update={"eos": (end,)}))
    assert list(Decoder(ending).generate(features(7), QUESTION)) == []


def test_yes_and_no_are_weighed_in_all_their_spellings(tmp_path: Path) -> None:
    """A model for which every token is equally likely: a word of k tokens then has the probability 1 / vocabulary^k."""
    write_checkpoint(tmp_path, SIZE, zero="lm_head.weight")
    decoder = Decoder(export_model(tmp_path, name="random", domain="noise", prompt=PROMPT))
    tokenizer = Tokenizer(tmp_path / "tokenizer.json")
    size = len(decoder.look(features(8)).logits)
    yes, no = (sum(size ** -float(len(tokenizer.words(word))) for word in words) for words in (YES, NO))
    assert yes != pytest.approx(no, rel=1e-3)
    assert decoder.yes_no(features(8), QUESTION) == pytest.approx(yes / (yes + no))


@pytest.mark.parametrize("damage", ["missing", "not JSON", "no image token"])
def test_a_broken_tokenizer_is_a_fault_of_the_model(model: Model, tmp_path: Path, damage: str) -> None:
    for file in model.folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tokenizer = tmp_path / "tokenizer.json"
    if damage == "missing":
        tokenizer.unlink()
    elif damage == "not JSON":
        tokenizer.write_text("{")
    else:
        tokenizer.write_text(tokenizer.read_text().replace('"<image>"', '"<picture>"'))
    assert (tmp_path / MANIFEST).is_file()
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        Decoder(load_model(tmp_path))
