"""The describing thread: every wish is answered once, the newest first in line, and no one waits for words."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np

from agent.describing import DescribingThread, Description, Look
from config.errors import DescriberError, EngineFault

FEATURES = np.zeros((4, 2), np.float32)
LOOK = Look(FEATURES)


class Answers:
    def __init__(self) -> None:
        self.got: dict[str, list[Description]] = {}

    def to(self, name: str):  # type: ignore[no-untyped-def]
        return lambda description: self.got.setdefault(name, []).append(description)


def test_words_come_whole_and_from_a_copy_of_the_features() -> None:
    answers = Answers()
    may_go = threading.Event()

    def say(look: Look) -> Iterator[str]:
        may_go.wait(60)
        yield f"sum {look.features.sum():g}"
        yield " said "

    features = FEATURES.copy()
    with DescribingThread() as thread:
        thread.wish("a", say, Look(features), answers.to("a"))
        features += 1
        may_go.set()
        assert thread.finish(60)
    assert answers.got == {"a": [Description("sum 0 said")]}


def test_the_newest_wish_replaces_the_one_that_waits_and_all_are_answered() -> None:
    answers = Answers()
    began, may_go = threading.Event(), threading.Event()

    def say(_look: Look) -> Iterator[str]:
        began.set()
        may_go.wait(60)
        yield "words"

    with DescribingThread() as thread:
        thread.wish("a", say, LOOK, answers.to("first"))
        assert began.wait(60)
        for name in ("second", "third"):
            thread.wish("a", say, LOOK, answers.to(name))
        thread.wish("b", say, LOOK, answers.to("other camera"))
        may_go.set()
        assert thread.finish(60)
    assert answers.got.pop("second") == [Description("", "no text: newer news came first")]
    assert answers.got == {name: [Description("words")] for name in ("first", "third", "other camera")}


def test_an_alert_gives_way_to_nothing_but_a_third_alert() -> None:
    answers, order = Answers(), []
    began, may_go = threading.Event(), threading.Event()

    def say(name: str):  # type: ignore[no-untyped-def]
        def words(_look: Look) -> Iterator[str]:
            began.set()
            may_go.wait(60)
            order.append(name)
            yield "words"

        return words

    with DescribingThread() as thread:
        thread.wish("a", say("running"), LOOK, answers.to("running"))
        assert began.wait(60)
        wishes = ("b change", "a change 1", "a alert 1", "a alert 2", "a change 2", "a change 3", "b first")
        for name in wishes:
            thread.wish(name[0], say(name), LOOK, answers.to(name), alert="alert" in name)
        thread.wish("c", say("c alert 1"), LOOK, answers.to("c alert 1"), alert=True)
        for name in ("c alert 2", "c alert 3"):
            thread.wish("c", say(name), LOOK, answers.to(name), alert=True)
        may_go.set()
        assert thread.finish(60)
    assert order == ["running", "a alert 1", "a alert 2", "c alert 2", "c alert 3", "b first", "a change 3"]
    dropped = ["b change", "a change 1", "a change 2", "c alert 1"]
    assert all(answers.got[name] == [Description("", "no text: newer news came first")] for name in dropped)
    assert all(answers.got[name] == [Description("words")] for name in order)


def test_a_fault_costs_one_text_and_no_thread() -> None:
    answers = Answers()

    def fails(_look: Look) -> Iterator[str]:
        yield "half"
        raise EngineFault("out of memory")

    with DescribingThread() as thread:
        thread.wish("a", fails, LOOK, answers.to("a"))
        assert thread.finish(60)
        thread.wish("a", lambda _look: iter(["whole"]), LOOK, answers.to("a"))
        assert thread.finish(60)
    assert answers.got["a"] == [Description("half", "text cut short: out of memory"), Description("whole")]


def test_endless_words_are_cut_at_the_deadline_or_at_the_end_of_the_agent() -> None:
    answers = Answers()
    now = [0.0]
    first_word = threading.Event()

    def ticking(_look: Look) -> Iterator[str]:
        while True:
            now[0] += 1
            yield "on "

    def endless(_look: Look) -> Iterator[str]:
        while True:
            first_word.set()
            yield "x"

    thread = DescribingThread(deadline_s=3, clock=lambda: now[0])
    thread.wish("a", ticking, LOOK, answers.to("deadline"))
    assert thread.finish(60)
    thread.wish("a", endless, LOOK, answers.to("running"))
    assert first_word.wait(60)
    thread.wish("a", endless, LOOK, answers.to("waiting"))
    thread.close()
    thread.wish("a", endless, LOOK, answers.to("late"))
    assert answers.got["deadline"] == [Description("on on on on", "text cut short: it took longer than 3 s")]
    assert answers.got["running"][0].note == "text cut short: the agent was stopping"
    assert [answers.got[name] for name in ("waiting", "late")] == [
        [Description("", "no text: the agent was stopping")]
    ] * 2


def test_a_word_that_never_comes_is_given_up_at_the_end() -> None:
    answers = Answers()
    began, never = threading.Event(), threading.Event()

    def stuck(_look: Look) -> Iterator[str]:
        began.set()
        never.wait(30)
        yield "too late"

    thread = DescribingThread()
    thread.wish("a", stuck, LOOK, answers.to("a"))
    assert began.wait(60)
    assert not thread.finish(0.01)
    thread.close(0.01)
    never.set()
    thread.close(60)
    assert answers.got == {"a": [Description("", "no text: the agent was stopping")]}


def test_a_camera_that_has_newer_news_keeps_its_turn() -> None:
    answers = Answers()
    began, may_go = threading.Event(), threading.Event()
    order: list[str] = []

    def say(name: str):  # type: ignore[no-untyped-def]
        def words(_look: Look) -> Iterator[str]:
            began.set()
            may_go.wait(60)
            order.append(name)
            yield name

        return words

    with DescribingThread() as thread:
        thread.wish("first", say("first"), LOOK, answers.to("first"))
        assert began.wait(60)
        for name in ("busy", "calm", "busy"):
            thread.wish(name, say(name), LOOK, answers.to(name))
        may_go.set()
        assert thread.finish(60)
    assert order == ["first", "busy", "calm"]


def test_a_change_is_told_against_the_picture_of_the_last_words() -> None:
    before: list[bytes | None] = []

    def say(look: Look) -> Iterator[str]:
        before.append(look.before)
        if look.picture == b"2":
            raise DescriberError("not now")
        yield "words"

    with DescribingThread() as thread:
        for picture, change in ((b"0", False), (b"1", True), (b"2", True), (b"3", True), (b"4", False)):
            thread.wish("a", say, Look(FEATURES, picture, change), lambda _: None)
            assert thread.finish(60)
    assert before == [None, b"0", b"1", b"1", None]


def test_the_built_in_model_speaks_where_the_describer_has_no_words() -> None:
    answers = Answers()

    def fails(_look: Look) -> Iterator[str]:
        raise DescriberError("host: connection refused")
        yield ""

    def half(_look: Look) -> Iterator[str]:
        yield "half"
        raise DescriberError("host: the connection broke")

    def mute(_look: Look) -> Iterator[str]:
        raise EngineFault("out of memory")
        yield ""

    with DescribingThread() as thread:
        for name, describe, fallback in (
            ("instead", fails, lambda _look: iter(["words"])),
            ("half", half, lambda _look: iter(["words"])),
            ("neither", fails, mute),
        ):
            thread.wish(name, describe, LOOK, answers.to(name), fallback=fallback)
        assert thread.finish(60)
    assert answers.got == {
        "instead": [Description("words", "text by the built-in model: host: connection refused")],
        "half": [Description("half", "text cut short: host: the connection broke")],
        "neither": [Description("", "no text: host: connection refused")],
    }


def test_cameras_are_described_side_by_side_and_each_in_its_order() -> None:
    answers = Answers()
    together = threading.Barrier(2, timeout=60)

    def say(word: str):  # type: ignore[no-untyped-def]
        def words(_look: Look) -> Iterator[str]:
            together.wait()
            yield word

        return words

    with DescribingThread(parallel=2) as thread:
        thread.wish("a", say("1"), LOOK, answers.to("a"))
        thread.wish("b", say("1"), LOOK, answers.to("b"))
        assert thread.finish(60)
    assert answers.got == {"a": [Description("1")], "b": [Description("1")]}
