"""Texts compared by their sentences."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from agent.wording import only_in, sentences

_sentence = st.sampled_from(["A car.", "A dog walking on the left.", "It rains!", "Is 3.5 m wide?", "no end"])
_text = st.lists(_sentence, max_size=6).map(" ".join)


@given(_text, _text)
def test_what_is_new_and_what_both_have_is_the_whole(text: str, other: str) -> None:
    both = Counter(sentences(text)) & Counter(sentences(other))
    assert Counter(sentences(only_in(text, other))) + both == Counter(sentences(text))
    assert only_in(text, text) == "" and only_in(text, "") == " ".join(sentences(text))


def test_a_number_with_a_point_is_no_end() -> None:
    assert sentences("A car. It is 3.5 m wide.  Two dogs!") == ["A car.", "It is 3.5 m wide.", "Two dogs!"]
