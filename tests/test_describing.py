"""The describing thread: every wish is answered once, the newest first in line, and no one waits for words."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from agent.describing import DescribingThread, Description
from config.errors import EngineFault

FEATURES = np.zeros((4, 2), np.float32)


class Answers:
    def __init__(self) -> None:
        self.got: dict[str, list[Description]] = {}

    def to(self, name: str):  # type: ignore[no-untyped-def]
        return lambda description: self.got.setdefault(name, []).append(description)


def test_words_come_whole_and_from_a_copy_of_the_features() -> None:
    answers = Answers()
    may_go = threading.Event()

    def say(features: NDArray[np.float32]) -> Iterator[str]:
        may_go.wait(5)
        yield f"sum {features.sum():g}"
        yield " said "

    features = FEATURES.copy()
    with DescribingThread() as thread:
        thread.wish("a", say, features, answers.to("a"))
        features += 1
        may_go.set()
        assert thread.finish(5)
    assert answers.got == {"a": [Description("sum 0 said")]}


def test_the_newest_wish_replaces_the_one_that_waits_and_all_are_answered() -> None:
    answers = Answers()
    began, may_go = threading.Event(), threading.Event()

    def say(_features: NDArray[np.float32]) -> Iterator[str]:
        began.set()
        may_go.wait(5)
        yield "words"

    with DescribingThread() as thread:
        thread.wish("a", say, FEATURES, answers.to("first"))
        assert began.wait(5)
        for name in ("second", "third"):
            thread.wish("a", say, FEATURES, answers.to(name))
        thread.wish("b", say, FEATURES, answers.to("other camera"))
        may_go.set()
        assert thread.finish(5)
    assert answers.got.pop("second") == [Description("", "no text: newer news came first")]
    assert answers.got == {name: [Description("words")] for name in ("first", "third", "other camera")}


def test_a_fault_costs_one_text_and_no_thread() -> None:
    answers = Answers()

    def fails(_features: NDArray[np.float32]) -> Iterator[str]:
        yield "half"
        raise EngineFault("out of memory")

    with DescribingThread() as thread:
        thread.wish("a", fails, FEATURES, answers.to("a"))
        assert thread.finish(5)
        thread.wish("a", lambda _features: iter(["whole"]), FEATURES, answers.to("a"))
        assert thread.finish(5)
    assert answers.got["a"] == [Description("half", "text cut short: out of memory"), Description("whole")]


def test_endless_words_are_cut_at_the_deadline_or_at_the_end_of_the_agent() -> None:
    answers = Answers()
    now = [0.0]
    first_word = threading.Event()

    def ticking(_features: NDArray[np.float32]) -> Iterator[str]:
        while True:
            now[0] += 1
            yield "on "

    def endless(_features: NDArray[np.float32]) -> Iterator[str]:
        while True:
            first_word.set()
            yield "x"

    thread = DescribingThread(deadline_s=3, clock=lambda: now[0])
    thread.wish("a", ticking, FEATURES, answers.to("deadline"))
    assert thread.finish(5)
    thread.wish("a", endless, FEATURES, answers.to("running"))
    assert first_word.wait(5)
    thread.wish("a", endless, FEATURES, answers.to("waiting"))
    thread.close()
    thread.wish("a", endless, FEATURES, answers.to("late"))
    assert answers.got["deadline"] == [Description("on on on on", "text cut short after 3 s")]
    assert answers.got["running"][0].missing == "text cut short: the agent was stopping"
    assert [answers.got[name] for name in ("waiting", "late")] == [
        [Description("", "no text: the agent was stopping")]
    ] * 2


def test_a_word_that_never_comes_is_given_up_at_the_end() -> None:
    answers = Answers()
    began, never = threading.Event(), threading.Event()

    def stuck(_features: NDArray[np.float32]) -> Iterator[str]:
        began.set()
        never.wait(30)
        yield "too late"

    thread = DescribingThread()
    thread.wish("a", stuck, FEATURES, answers.to("a"))
    assert began.wait(5)
    assert not thread.finish(0.01)
    thread.close(0.01)
    never.set()
    thread.close(5)
    assert answers.got == {"a": [Description("", "no text: the agent was stopping")]}
