"""From visual tokens and a question to streamed text and probabilities, with nothing read twice."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import tokenizers
from engines_checkpoint import Size, write_checkpoint, write_tokenizer
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from config.errors import EngineFault, ModelError
from engines.decoder import NO, YES, Decoder
from engines.export import export_model
from engines.export.__main__ import app as export
from engines.manifest import MANIFEST, Model, load_model
from engines.onnx.language import LanguageModel
from engines.onnx.runtime import OnnxRuntime
from engines.text.drafting import continued
from engines.text.prompt import FAKE, GLOBAL, IMAGE, Prompt
from engines.text.sampling import Sampling
from engines.text.weighing import log_softmax
from engines.tokenizer import StopStrings, TextStream, Tokenizer

SIZE = Size(merge=2)
PROMPT = "User:{image}{question}<end_of_utterance>\nAssistant:"
QUESTION = "Is a red car on the street?"
QUESTIONS = (QUESTION, "Is a red dog there?", "", "the person")
GRID, BLOCKS = 4, 4  # patches a side, visual tokens


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("model")
    write_checkpoint(folder, SIZE)
    return export_model(folder, name="random", domain="noise", prompt=PROMPT)


@pytest.fixture(scope="module")
def forgetful(model: Model) -> Decoder:
    """Keeps nothing: reads every picture from its beginning."""
    return Decoder(model, prefix_bytes=0)


@pytest.fixture
def decoder(model: Model) -> Decoder:
    return Decoder(model)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    write_tokenizer(file)
    return Tokenizer(file)


def features(seed: int, changed: int = BLOCKS) -> NDArray[np.float32]:
    """Features of a picture; from the visual token `changed` on they differ from those of seed 0."""
    noise = [np.random.default_rng(s).normal(size=(GRID, GRID, SIZE.dim)).astype(np.float32) for s in (0, seed)]
    if changed == BLOCKS:
        return noise[1].reshape(-1, SIZE.dim)
    token = np.arange(BLOCKS).reshape(2, 2).repeat(2, axis=0).repeat(2, axis=1)
    return np.where((token >= changed)[..., None], noise[1], noise[0]).reshape(-1, SIZE.dim)


def say(decoder: Decoder, picture: object, question: str = QUESTION, **given: object) -> str:
    return "".join(decoder.generate(picture, question, **{"max_tokens": 12, **given}))  # type: ignore[arg-type]


# What is read


def test_visual_tokens_gather_square_blocks_of_patches(tmp_path: Path) -> None:
    """Block (i, j) of the grid becomes one token: its rows one after the other, then the projection."""
    weights = write_checkpoint(tmp_path, SIZE)
    decoder = Decoder(export_model(tmp_path, name="random", domain="noise", prompt=PROMPT))
    grid = features(1).reshape(4, 4, SIZE.dim)
    blocks = [grid[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].reshape(-1) for i in range(2) for j in range(2)]
    expected = np.stack(blocks) @ weights["model.connector.modality_projection.proj.weight"].T
    np.testing.assert_allclose(decoder.visual_tokens(features(1)), expected, atol=1e-4)


@pytest.mark.parametrize("changed", range(BLOCKS + 1))
def test_what_has_not_changed_is_not_read_again(decoder: Decoder, forgetful: Decoder, changed: int) -> None:
    prompt = Prompt(load_model(decoder_folder(decoder)), decoder._tokenizer)
    ids = prompt.start()
    decoder.look(features(0))
    assert decoder.tokens_read == len(ids)
    now = features(0) if changed == BLOCKS else features(1, changed)
    context = decoder.look(now)
    expected = 0 if changed == BLOCKS else len(ids) - ids.index(prompt.image) - changed
    assert decoder.tokens_read - len(ids) == expected
    fresh = forgetful.look(now)
    np.testing.assert_allclose(context.logits, fresh.logits, atol=1e-5)
    np.testing.assert_allclose(context.past, fresh.past, atol=1e-5)
    assert say(decoder, context) == say(forgetful, fresh)


def decoder_folder(decoder: Decoder) -> Path:
    return decoder._tokenizer._file.parent


def test_features_that_are_overwritten_are_not_taken_for_unchanged(decoder: Decoder, forgetful: Decoder) -> None:
    """The encoder hands out its own array and changes it in place."""
    shared = features(1)
    decoder.look(shared)
    shared[:] = features(2)
    np.testing.assert_allclose(decoder.look(shared).logits, forgetful.look(features(2)).logits, atol=1e-5)


def test_each_key_has_its_own_prefix_and_the_longest_unused_is_dropped(model: Model) -> None:
    def read(decoder: Decoder, picture: int, key: str) -> int:
        before = decoder.tokens_read
        decoder.look(features(picture), key=key)
        return decoder.tokens_read - before

    everything = Decoder(model)
    full = read(everything, 1, "a")
    assert [read(everything, 2, "b"), read(everything, 1, "a"), read(everything, 2, "b")] == [full, 0, 0]

    one = everything._prefixes.of("a")[0].nbytes
    two = Decoder(model, prefix_bytes=2 * one)
    for picture, key in ((1, "a"), (2, "b"), (1, "a"), (3, "c")):
        read(two, picture, key)
    assert [read(two, 1, "a"), read(two, 3, "c"), read(two, 2, "b")] == [0, 0, full]
    none = Decoder(model, prefix_bytes=one - 1)
    assert [read(none, 1, "a"), read(none, 1, "a")] == [full, full]


def test_a_context_never_changes(decoder: Decoder) -> None:
    context = decoder.look(features(3))
    past, logits, answer = context.past.copy(), context.logits.copy(), say(decoder, context, max_tokens=100)
    half = decoder.generate(context, QUESTION, max_tokens=100)
    begun = [next(half), next(half)]
    decoder.look(features(4))
    decoder.yes_no_many(context, QUESTIONS)
    assert say(decoder, context, "What is there?") != answer
    assert "".join([*begun, *half]) == say(decoder, context, max_tokens=100) == answer
    assert (context.past == past).all() and (context.logits == logits).all()


def test_one_look_serves_several_questions(decoder: Decoder, forgetful: Decoder) -> None:
    context = decoder.look(features(3))
    for question in (QUESTION, "What is there?", ""):
        assert say(decoder, context, question) == say(forgetful, features(3), question)
        assert decoder.yes_no(context, question) == pytest.approx(forgetful.yes_no(features(3), question), abs=1e-5)


def test_a_broken_picture_spoils_no_other(decoder: Decoder, forgetful: Decoder) -> None:
    with pytest.raises(EngineFault, match="finite"):
        decoder.look(np.full_like(features(1), np.nan))
    np.testing.assert_allclose(decoder.look(features(1)).logits, forgetful.look(features(1)).logits, atol=1e-5)


def test_two_pictures_are_laid_out_like_one_after_the_other(model: Model, decoder: Decoder) -> None:
    block = FAKE + GLOBAL + IMAGE * BLOCKS + FAKE
    prompt = Prompt(model, decoder._tokenizer)
    ids = prompt.start(2) + prompt.rest(QUESTION)
    assert decoder._tokenizer.encode(f"User:{block}{block}{QUESTION}<end_of_utterance>\nAssistant:") == ids


def test_two_pictures_start_from_the_first_alone(model: Model, decoder: Decoder, forgetful: Decoder) -> None:
    then, now = features(1), features(2)
    single, pair = (len(Prompt(model, decoder._tokenizer).start(n)) for n in (1, 2))
    decoder.look(then, key="a")
    both = decoder.look(now, before=then, key="a")
    assert decoder.tokens_read == pair
    np.testing.assert_allclose(both.logits, forgetful.look(now, before=then).logits, atol=1e-5)
    assert say(decoder, both) == say(forgetful, forgetful.look(now, before=then))
    assert say(decoder, both) != say(decoder, forgetful.look(then, before=now))
    before = decoder.tokens_read
    decoder.look(features(3), before=then, key="a")
    assert decoder.tokens_read - before == pair - single - 2  # after the second picture's fake and global tokens
    decoder.look(then, key="a")
    assert decoder.tokens_read - before == pair - single - 2


def test_several_threads_may_ask(decoder: Decoder, forgetful: Decoder) -> None:
    def ask(seed: int) -> str:
        return say(decoder, features(seed % 3), key=str(seed % 2))

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(12)))
    assert answers == [say(forgetful, features(seed % 3)) for seed in range(12)]


# What is said


@given(text=st.text())
def test_pieces_are_whole_characters_and_add_up_to_the_text(tokenizer: Tokenizer, text: str) -> None:
    stream = TextStream(tokenizer)
    pieces = [stream.push(token) for token in tokenizer.words(tokenizer.without_special(text))]
    assert "".join(pieces) + stream.rest() == tokenizer.without_special(text)
    if "\N{REPLACEMENT CHARACTER}" not in text:
        assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)


def test_an_answer_streams_up_to_its_limit(decoder: Decoder) -> None:
    pieces = list(decoder.generate(features(1), QUESTION, max_tokens=12))
    assert 1 < len(pieces) <= 12
    assert say(decoder, features(1), max_tokens=5) in "".join(pieces)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0, seed=3)])
def test_a_long_answer_is_what_reading_it_at_once_gives(
    decoder: Decoder, forgetful: Decoder, sampling: Sampling
) -> None:
    """Past the room made at first: every token is the one that follows from the whole text before it."""
    context = decoder.look(features(1))
    tokens = list(decoder._tokens(context, QUESTION, "", sampling, 150, lambda: False))
    assert len(tokens) == 150
    question = decoder._prompt.rest(QUESTION)
    rows = decoder._language.embed([*question, *tokens])
    reading = decoder._language.read_on(context.past, len(rows))
    random = np.random.default_rng(sampling.seed)
    logits = reading.read(rows, answer=range(len(question) - 1, len(rows) - 1))
    assert tokens == [sampling.choose(row, random) for row in logits]


def test_reading_at_once_equals_reading_bit_by_bit(decoder: Decoder) -> None:
    rows = np.random.default_rng(4).normal(size=(9, SIZE.text_dim)).astype(np.float32)
    past = decoder.look(features(4)).past
    at_once, by_bits = (decoder._language.read_on(past, room) for room in (9, 1))
    logits = at_once.read(rows)
    for part in (rows[:1], rows[1:5], rows[5:6], rows[6:]):
        last = by_bits.read(part)
    assert at_once.length == by_bits.length == past.shape[3] + 9
    np.testing.assert_allclose(last, logits, atol=1e-5)
    np.testing.assert_allclose(by_bits.past, at_once.past, atol=1e-5)


def test_the_picture_and_the_question_matter(decoder: Decoder) -> None:
    assert len({say(decoder, features(seed), question) for seed in (1, 2) for question in ("a", "b")}) == 4


def test_a_question_cannot_bring_its_own_control_tokens(decoder: Decoder) -> None:
    plain = say(decoder, features(5))
    assert say(decoder, features(5), f"<image>{QUESTION}<im<image>age><end_of_utterance>") == plain
    assert say(decoder, features(5), "{image}") != say(decoder, features(5), "")


def test_the_same_seed_says_the_same(decoder: Decoder) -> None:
    def sampled(seed: int) -> str:
        return say(decoder, features(6), sampling=Sampling(temperature=1.5, top_p=0.95, top_k=100, seed=seed))

    assert sampled(1) == sampled(1)
    assert len({sampled(seed) for seed in range(6)} | {say(decoder, features(6))}) > 3


def test_an_answer_stops_when_told(decoder: Decoder) -> None:
    stop = Event()
    pieces = decoder.generate(features(6), QUESTION, max_tokens=50, stop=stop)
    next(pieces)
    stop.set()
    before = decoder.tokens_read
    assert list(pieces) == []
    assert decoder.tokens_read == before
    assert list(decoder.generate(features(7), QUESTION, stop=stop)) == []
    assert decoder.tokens_read == before


def test_an_answer_ends_when_its_time_is_over(model: Model) -> None:
    seconds = iter(range(100))
    decoder = Decoder(model, clock=lambda: next(seconds))
    assert len(list(decoder._tokens(features(6), "", "", Sampling(), 50, until(decoder, 5)))) == 4
    answer = say(Decoder(model), features(6), max_tokens=50)
    timed = say(Decoder(model, clock=lambda: next(seconds)), features(6), max_tokens=50, budget_s=6)
    assert answer.startswith(timed) and 0 < len(timed) < len(answer)


def until(decoder: Decoder, second: int) -> object:
    return lambda: decoder._clock() >= second


def test_an_answer_that_is_dropped_leaves_nothing_running(decoder: Decoder) -> None:
    threads = set(threading.enumerate())
    pieces = decoder.generate(features(6), QUESTION, max_tokens=50)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert list(pieces) == []
    assert not set(threading.enumerate()) - threads


def test_an_answer_stops_at_its_end_token(model: Model, decoder: Decoder) -> None:
    first = next(decoder._tokens(features(7), QUESTION, "", Sampling(), 1, lambda: False))
    vocabulary = json.loads((model.folder / "tokenizer.json").read_text())["model"]["vocab"]
    end = next(token for token, number in vocabulary.items() if number == first)
    ending = replace(model, manifest=model.manifest.model_copy(update={"eos": (end,)}))
    assert list(Decoder(ending).generate(features(7), QUESTION)) == []


@pytest.mark.parametrize(
    "given", [{"max_tokens": 0}, {"budget_s": 0}, {"budget_s": float("nan")}, {"until": "end"}, {"until": ["a", ""]}]
)
def test_limits_that_allow_nothing_are_refused_at_once(decoder: Decoder, given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        decoder.generate(features(1), QUESTION, **given)  # type: ignore[arg-type]


# Stop strings


def test_no_part_of_a_stop_string_is_ever_shown(decoder: Decoder) -> None:
    whole = say(decoder, features(8), max_tokens=30)
    stop = whole[10:14]
    pieces = list(decoder.generate(features(8), QUESTION, max_tokens=30, until=[stop, "never said"]))
    assert "".join(pieces) == whole[: whole.find(stop)]
    before = decoder.tokens_read
    say(decoder, features(8), max_tokens=30)
    assert decoder.tokens_read - before > 15  # and what comes after it isn't made


@st.composite
def cut_text(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    letters = st.text("ab", max_size=3)
    return draw(st.lists(letters, max_size=8)), draw(st.lists(st.text("abc", min_size=1, max_size=4), max_size=3))


@given(given=cut_text())
def test_stop_strings_do_not_depend_on_how_the_text_is_cut(given: tuple[list[str], list[str]]) -> None:
    pieces, stops = given
    text = "".join(pieces)
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    shown, ending, ended = "", StopStrings(stops), False
    for piece in pieces:
        more, ended = ending.push(piece)
        shown += more
        assert text[: min(ends)[1] if ends else None].startswith(shown)
        if ended:
            break
    assert ended == bool(ends)
    assert shown + ending.rest() == text[: min(ends)[1] if ends else None]


# Sampling


@given(
    logits=st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=30),
    temperature=st.sampled_from([0.0, 1e-9, 0.3, 1.0, 5.0]),
    top_k=st.none() | st.integers(1, 40),
    top_p=st.floats(0.01, 1.0),
)
@example(logits=[0.0, 0.125, 4.584676010056432e-21], temperature=0.3, top_k=None, top_p=0.5)
def test_sampling_keeps_the_likeliest_in_proportion(
    logits: list[float], temperature: float, top_k: int | None, top_p: float
) -> None:
    scores = np.array(logits, np.float32)
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    p = sampling.probabilities(scores)
    kept = p > 0
    assert p.sum() == pytest.approx(1)
    assert scores[kept].min() >= scores[~kept].max(initial=-np.inf)
    assert kept[sampling.choose(scores, np.random.default_rng(0))]
    if temperature >= 0.3:
        all_p = np.exp(log_softmax(scores / np.float32(temperature)))
        np.testing.assert_allclose(p[kept] / p.max(), all_p[kept] / all_p.max(), rtol=1e-4)
        if top_k is None:
            assert all_p[kept].sum() >= top_p - 1e-6
            assert all_p[kept].sum() - all_p[kept].min() < top_p + 1e-6


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    sampling, random = Sampling(temperature=1.0), np.random.default_rng(0)
    logits = np.log(np.array([0.5, 1e-30, 0.3, 0.2], np.float32))
    drawn = np.bincount([sampling.choose(logits, random) for _ in range(4000)], minlength=4) / 4000
    np.testing.assert_allclose(drawn, [0.5, 0, 0.3, 0.2], atol=0.03)


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1}, {"temperature": np.nan}, {"top_p": 0}, {"top_p": 1.1}, {"top_k": 0}, {"seed": -1}]
)
def test_settings_that_mean_nothing_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: found .* expected"):
        Sampling(**wrong)  # type: ignore[arg-type]


# Weighing


def likelihood(decoder: Decoder, picture: NDArray[np.float32], question: str, text: str) -> float:
    """Of the text as the answer: one token read after the other."""
    context = decoder.look(picture)
    reading = decoder._language.read_on(context.past, 0)
    logits, total = context.logits, 1.0
    for token in decoder._prompt.rest(question):
        logits = reading.read(decoder._language.embed([token]))[0]
    for token in decoder._tokenizer.words(text):
        total *= float(np.exp(log_softmax(logits)[token]))
        logits = reading.read(decoder._language.embed([token]))[0]
    return total


def test_options_are_weighed_by_what_the_model_would_say(decoder: Decoder) -> None:
    options = ("red", ("car", "street"), "dog", "blue")
    found = decoder.choose(features(2), QUESTION, options)
    texts = [(option,) if isinstance(option, str) else option for option in options]
    each = np.array(
        [sum(likelihood(decoder, features(2), QUESTION, s + t) for t in ts for s in ("", " ")) for ts in texts]
    )
    np.testing.assert_allclose(found, each / each.sum(), rtol=1e-4)
    assert decoder.choose(features(2), QUESTION, (YES, NO))[0] == pytest.approx(decoder.yes_no(features(2), QUESTION))


def test_yes_and_no_are_weighed_in_all_their_spellings(tmp_path: Path) -> None:
    """A model for which every token is equally likely: a word of k tokens then has the probability 1 / vocabulary^k."""
    write_checkpoint(tmp_path, SIZE, zero="lm_head.weight")
    decoder = Decoder(export_model(tmp_path, name="random", domain="noise", prompt=PROMPT))
    tokenizer = Tokenizer(tmp_path / "tokenizer.json")
    size = len(decoder.look(features(8)).logits)
    yes, no = (
        sum(size ** -float(len(tokenizer.words(s + w))) for w in words for s in ("", " ")) for words in (YES, NO)
    )
    assert yes != pytest.approx(no, rel=1e-3)
    assert decoder.yes_no(features(8), QUESTION) == pytest.approx(yes / (yes + no))


def test_many_questions_at_once_are_answered_like_each_alone(decoder: Decoder) -> None:
    context = decoder.look(features(9))
    questions = [f"{question} {i}" for i in range(5) for question in QUESTIONS] + list(QUESTIONS)
    looked = decoder.tokens_read
    alone = [decoder.yes_no(context, question) for question in questions]
    before = decoder.tokens_read
    np.testing.assert_allclose(decoder.yes_no_many(context, questions), alone, atol=1e-5)
    assert decoder.tokens_read - before < before - looked  # what they have in common is read once
    assert decoder.yes_no_many(context, []).shape == (0,)


@pytest.mark.parametrize("options", [(), ("",), ("a", ()), ("a", ("b", ""))])
def test_options_must_say_something(decoder: Decoder, options: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="options"):
        decoder.choose(features(1), QUESTION, options)


def test_the_manifest_calibrates_yes_and_no(model: Model, tmp_path: Path) -> None:
    shutil.copytree(model.folder, tmp_path, dirs_exist_ok=True)
    calibrated = export_model(tmp_path, name="random", domain="noise", prompt=PROMPT, yes_no=(0.5, -1.25))
    assert '"yes_no": [ 0.5, -1.25 ]' in (tmp_path / MANIFEST).read_text()
    assert "yes_no" not in (model.folder / MANIFEST).read_text()
    odds = Decoder(model).yes_no_log_odds(features(1), QUESTION)
    assert Decoder(model).yes_no(features(1), QUESTION) == pytest.approx(1 / (1 + np.exp(-odds)))
    assert Decoder(calibrated).yes_no(features(1), QUESTION) == pytest.approx(1 / (1 + np.exp(1.25 - 0.5 * odds)))
    assert Decoder(calibrated).yes_no_log_odds(features(1), QUESTION) == pytest.approx(odds)
    written = (tmp_path / MANIFEST).read_text()
    assert CliRunner().invoke(export, [str(tmp_path)]).exit_code == 0
    assert (tmp_path / MANIFEST).read_text() == written
    for wrong in ("[1, 2, 3]", "[NaN, 0]", '"yes"'):
        (tmp_path / MANIFEST).write_text(written.replace("[ 0.5, -1.25 ]", wrong))
        with pytest.raises(ModelError, match="yes_no"):
            load_model(tmp_path)


# Prompt and tokenizer


def with_prompt(model: Model, prompt: str) -> Model:
    return replace(model, manifest=model.manifest.model_copy(update={"prompt": prompt}))


@pytest.mark.parametrize(
    "prompt",
    [
        "{image}{question}",
        "You watch a street.\n\nUser: {image}\nAnswer briefly: {question} Think first.<end_of_utterance>\nAssistant:",
    ],
)
@pytest.mark.parametrize("start", ["", "<s>"])
def test_any_template_is_read_as_it_is_written(model: Model, tmp_path: Path, prompt: str, start: str) -> None:
    """The text around picture and question, whole, with one start token where the tokenizer adds one."""
    shutil.copytree(model.folder, tmp_path, dirs_exist_ok=True)
    if start:
        file = str(tmp_path / "tokenizer.json")
        raw = tokenizers.Tokenizer.from_file(file)
        raw.add_special_tokens(["<s>"])
        number = raw.token_to_id("<s>")
        raw.post_processor = tokenizers.processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", number)]
        )
        raw.save(file)
    tokenizer = Tokenizer(tmp_path / "tokenizer.json")
    expected = prompt.replace("{image}", FAKE + GLOBAL + IMAGE * BLOCKS + FAKE).replace("{question}", QUESTION)
    for written in (prompt, start + prompt):
        found = Prompt(with_prompt(replace(model, folder=tmp_path), written), tokenizer)
        assert found.start() + found.rest(QUESTION) == tokenizer.words(start + expected)


@pytest.mark.parametrize("prompt", ["<image>{image}{question}", "{image}{question}<fake_token_around_image>"])
def test_a_template_with_image_tokens_of_its_own_is_refused(model: Model, prompt: str) -> None:
    with pytest.raises(ModelError, match=r"manifest\.json: key `prompt`"):
        Decoder(with_prompt(model, prompt))


def test_an_end_token_that_the_tokenizer_lacks_is_named(model: Model) -> None:
    strange = replace(model, manifest=model.manifest.model_copy(update={"eos": ("<end>",)}))
    with pytest.raises(ModelError, match=r"`<end>`.*key `eos`"):
        Decoder(strange)


@pytest.mark.parametrize("damage", ["missing", "not JSON", "no image token"])
def test_a_broken_tokenizer_is_a_fault_of_the_model(model: Model, tmp_path: Path, damage: str) -> None:
    shutil.copytree(model.folder, tmp_path, dirs_exist_ok=True)
    tokenizer = tmp_path / "tokenizer.json"
    if damage == "missing":
        tokenizer.unlink()
    elif damage == "not JSON":
        tokenizer.write_text("{")
    else:
        tokenizer.write_text(tokenizer.read_text().replace('"<image>"', '"<picture>"'))
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        Decoder(load_model(tmp_path))


# What is said again


class CountedLanguage:
    """A language model that counts its runs: the rest is another's."""

    def __init__(self, model: Model) -> None:
        self._own = LanguageModel(OnnxRuntime(model, spin=False))
        self.runs = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._own, name)

    def read_on(self, past: NDArray[np.float32], room: int) -> object:
        reading = self._own.read_on(past, room)
        read = reading.read

        def counted(*rows: object, **named: object) -> NDArray[np.float32]:
            self.runs += 1
            return read(*rows, **named)  # type: ignore[arg-type]

        reading.read = counted  # type: ignore[method-assign]
        return reading


def test_what_is_said_again_takes_few_runs_and_what_is_new_is_said_as_ever(model: Model) -> None:
    language = CountedLanguage(model)
    decoder = Decoder(model, language=language)  # type: ignore[arg-type]
    first = say(decoder, features(1), key="front", again=True)
    language.runs = 0
    looked = decoder.look(features(1), key="front")
    assert say(decoder, looked, key="front", again=True) == first
    assert language.runs <= 3 < 12
    for seed in range(2, 30):
        assert say(decoder, features(seed), key="front", again=True) == say(decoder, features(seed))


@given(st.lists(st.integers(0, 3), max_size=30), st.lists(st.integers(0, 3), max_size=30))
def test_a_guess_is_a_stretch_of_what_was_said_before_that_follows_what_was_said_last(
    before: list[int], said: list[int]
) -> None:
    guess = list(continued(before, said))
    follows = [*said[-2:], *guess]
    assert not guess or any(before[i : i + len(follows)] == follows for i in range(len(before)))
