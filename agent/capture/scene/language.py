"""Words for a rendered scene: captions, questions and their answers, from the truth of the picture.

The grammar is closed and unambiguous, so that an answer is right or wrong: things are told from left to right, a place
in the picture is the third in which the middle of a thing lies, and a question that names one thing is asked only where
there is one of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from agent.capture.scene.truth import ACTIONS, COLOURS, KINDS, LIGHTS, PLACES, WEATHERS, SceneObject, SceneTruth

DESCRIBE = "Describe the scene."
CHANGED = "What changed?"
MIN_VISIBLE = 0.5
SIDES = ("on the left", "in the middle", "on the right")
NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight")
DOINGS = {
    "walking": "walking",
    "standing": "standing",
    "lying": "lying",
    "falling": "falling",
    "running": "running",
    "sitting": "sitting",
    "waving": "waving",
    "crouching": "crouching",
    "carrying": "carrying a box",
    "riding": "being ridden",
    "driving": "driving",
    "parked": "parked",
    "flying": "flying",
}
"""Action → how it is said. What is simply there (`left`) is not said to do anything."""
DOES = {
    "person": tuple(a for a in DOINGS if a not in ("riding", "driving", "parked", "flying")),
    "dog": ("walking", "standing", "lying", "sitting"),
    "cat": ("walking", "standing", "lying", "sitting"),
    "bird": ("standing", "flying"),
    "bicycle": ("riding", "parked"),
    "motorbike": ("riding", "parked"),
    "car": ("driving", "parked"),
    "truck": ("driving", "parked"),
    "bus": ("driving", "parked"),
}
PLURALS = {kind: f"{kind}s" for kind in KINDS} | {"person": "people", "bus": "buses", "box": "boxes"}
TIMES = {"day": "by day", "dusk": "at dusk", "night": "at night"}


@dataclass(frozen=True, slots=True)
class Question:
    """One question with its answer; topic groups answers for measurement."""

    topic: str
    ask: str
    answer: str


@dataclass(frozen=True, slots=True)
class Thing:
    """What can be said of one visible object; x is the middle of its visible box, 0 (left) to 1 (right)."""

    kind: str
    colour: str
    action: str
    x: float

    @property
    def side(self) -> str:
        return SIDES[min(2, max(0, int(self.x * 3)))]

    @property
    def noun(self) -> str:
        return f"person in {self.colour}" if self.kind == "person" else f"{self.colour} {self.kind}"

    @property
    def doing(self) -> str:
        """`" walking"`, or nothing."""
        return f" {DOINGS[self.action]}" if self.action in DOINGS else ""

    @property
    def phrase(self) -> str:
        return f"a {self.noun}{self.doing} {self.side}"


def things_in(truth: SceneTruth, width: int, min_visible: float = MIN_VISIBLE) -> list[Thing]:
    """Things to be spoken of in a picture `width` pixels wide, from left to right."""
    return sorted((thing_of(o, width) for o in truth.objects if o.visible >= min_visible), key=lambda t: t.x)


def thing_of(o: SceneObject, width: int) -> Thing:
    """What can be said of one object in a picture `width` pixels wide."""
    x, _, w, _ = o.box
    left, right = max(0.0, x), min(float(width), x + w)
    return Thing(o.kind, o.colour, o.action, (left + right) / 2 / width)


def caption(truth: SceneTruth, things: Sequence[Thing]) -> str:
    """One sentence on the place, one for each thing."""
    article = "an" if truth.place[0] in "aeiou" else "a"
    first = f"{article} {truth.place} {TIMES[truth.light]}"
    if truth.weather == "rain":
        first += " in the rain"
    if not things:
        return _sentence(first) + " Nothing is there."
    return " ".join(_sentence(s) for s in (first, *(t.phrase for t in things)))


def questions(truth: SceneTruth, things: Sequence[Thing], rng: np.random.Generator, count: int) -> list[Question]:
    """`count` questions on the picture, drawn evenly over the topics that apply."""
    makers: list[Callable[[], Question | None]] = [
        lambda: presence(things, _present_or_any(things, rng)),
        lambda: presence(things, _present_or_any(things, rng)),
        lambda: _attribute_presence(things, rng),
        lambda: _attribute_presence(things, rng),
        lambda: how_many(things, _present_or_any(things, rng)),
        lambda: where(things, _present_kind(things, rng)),
        lambda: where(things, _present_kind(things, rng)),
        lambda: colour(things, _present_kind(things, rng)),
        lambda: doing(things, _present_kind(things, rng)),
        lambda: doing(things, _present_kind(things, rng)),
        lambda: side(things, int(rng.integers(3))),
        lambda: _absence(truth, things, rng),
        lambda: _ambience(truth, rng),
    ]
    found: list[Question] = []
    for _ in range(8 * count):
        if len(found) == count:
            break
        question = makers[int(rng.integers(len(makers)))]()
        if question is not None and question not in found:
            found.append(question)
    return found


def presence(things: Sequence[Thing], kind: str) -> Question:
    return Question("presence", f"Is there a {kind}?", _yes(any(t.kind == kind for t in things)))


def how_many(things: Sequence[Thing], kind: str) -> Question:
    n = sum(t.kind == kind for t in things)
    return Question("count", f"How many {PLURALS[kind]} are there?", f"{NUMBERS[n].capitalize()}.")


def where(things: Sequence[Thing], kind: str | None) -> Question | None:
    one = _only(things, kind)
    return Question("position", f"Where is the {one.kind}?", f"{one.side.capitalize()}.") if one else None


def colour(things: Sequence[Thing], kind: str | None) -> Question | None:
    one = _only(things, kind)
    if one is None:
        return None
    ask = "What colour is the person wearing?" if one.kind == "person" else f"What colour is the {one.kind}?"
    return Question("colour", ask, f"{one.colour.capitalize()}.")


def doing(things: Sequence[Thing], kind: str | None) -> Question | None:
    one = _only(things, kind)
    if one is None or one.action not in DOINGS:
        return None
    return Question("action", f"What is the {one.kind} doing?", _sentence(DOINGS[one.action]))


def side(things: Sequence[Thing], index: int) -> Question:
    there = [f"a {t.noun}" for t in things if t.side == SIDES[index]]
    return Question("side", f"What is {SIDES[index]}?", _sentence(" and ".join(there) or "nothing"))


def _attribute_presence(things: Sequence[Thing], rng: np.random.Generator) -> Question:
    """Yes/no on a kind with one attribute; half of the questions start from a thing that is there, so that a wrong
    attribute of a real thing is as common as a thing that is not there at all."""
    model = things[int(rng.integers(len(things)))] if things and rng.random() < 0.75 else None
    kind = model.kind if model else _pick(rng, KINDS)
    keep = model is not None and rng.random() < 0.5
    form = int(rng.integers(3))
    if form == 0:
        value = model.colour if model and keep else _pick(rng, COLOURS)
        noun = f"person in {value}" if kind == "person" else f"{value} {kind}"
        return Question("yes_no", f"Is there a {noun}?", _yes(any(t.noun == noun for t in things)))
    if form == 1 and kind in DOES:
        value = model.action if model and keep else _pick(rng, DOES[kind])
        there = any(t.kind == kind and t.action == value for t in things)
        return Question("yes_no", f"Is there a {kind} {DOINGS[value]}?", _yes(there))
    place = model.side if model and keep else _pick(rng, SIDES)
    return Question(
        "yes_no", f"Is there a {kind} {place}?", _yes(any(t.kind == kind and t.side == place for t in things))
    )


def _absence(truth: SceneTruth, things: Sequence[Thing], rng: np.random.Generator) -> Question:
    form = int(rng.integers(3))
    if form == 0:
        return Question("absence", f"Is the {truth.place} empty?", _yes(not things))
    if form == 1:
        return Question("absence", "Is nobody there?", _yes(all(t.kind != "person" for t in things)))
    present = [k for k in KINDS if any(t.kind == k for t in things)]
    kind = _pick(rng, present) if present and rng.random() < 0.5 else _pick(rng, KINDS)
    return Question("absence", f"Are there no {PLURALS[kind]}?", _yes(kind not in present))


def changes(before: SceneTruth, after: SceneTruth, width: int, min_visible: float = MIN_VISIBLE) -> list[str] | None:
    """What has come, gone, moved or does something else in the second of two pictures, from left to right, a sentence
    each; first how the light changed. None where a thing can be seen too little to say."""
    told: list[tuple[float, str]] = []
    if before.light != after.light:
        told.append((-1.0, f"It is {after.light} now."))
    was, now = ({o.id: o for o in truth.objects if o.visible > 0} for truth in (before, after))
    for id in was.keys() | now.keys():
        pair = [seen[id] for seen in (was, now) if id in seen]
        if any(o.visible < min_visible for o in pair):
            return None
        old, new = (thing_of(o, width) for o in (pair[0], pair[-1]))
        if id not in now:
            told.append((old.x, f"A {old.noun} went."))
        elif id not in was:
            told.append((new.x, f"A {new.noun} came."))
        elif new.action != old.action and new.action in DOINGS:
            told.append((new.x, f"A {new.noun} is {DOINGS[new.action]} now."))
        elif _shift(pair[0], pair[1]) >= LEAST_MOVE:
            told.append((new.x, f"A {new.noun} moved."))
    return [sentence for _, sentence in sorted(told)]


LEAST_MOVE = 0.3
"""Shift of a box, in its own longer sides, that counts as having moved."""


def _shift(a: SceneObject, b: SceneObject) -> float:
    (ax, ay, aw, ah), (bx, by, bw, bh) = a.box, b.box
    return float(np.hypot(ax + aw / 2 - bx - bw / 2, ay + ah / 2 - by - bh / 2)) / max(aw, ah, bw, bh)


def what_changed(before: SceneTruth, after: SceneTruth, width: int) -> list[Question]:
    """Questions on two pictures, the earlier one first; none where a thing can be seen too little to say."""
    told = changes(before, after, width)
    if told is None:
        return []
    return [
        Question("change", CHANGED, " ".join(told) or "Nothing changed."),
        Question("changed", "Did anything change?", _yes(bool(told))),
    ]


def _ambience(truth: SceneTruth, rng: np.random.Generator) -> Question:
    form = int(rng.integers(5))
    if form == 0:
        return Question("ambience", "What place is this?", f"{truth.place.capitalize()}.")
    if form == 1:
        return Question("ambience", "What time of day is it?", f"{truth.light.capitalize()}.")
    if form == 2:
        return Question("ambience", "Is it raining?", _yes(truth.weather == WEATHERS[1]))
    if form == 3:
        light = _pick(rng, LIGHTS)
        return Question("ambience", f"Is it {light}?", _yes(truth.light == light))
    place = _pick(rng, PLACES)
    article = "an" if place[0] in "aeiou" else "a"
    return Question("ambience", f"Is this {article} {place}?", _yes(truth.place == place))


def vocabulary() -> list[str]:
    """Every sentence pattern once with every word, for a tokenizer to be trained on."""
    words = [
        *KINDS,
        *PLURALS.values(),
        *COLOURS,
        *ACTIONS,
        *DOINGS.values(),
        *PLACES,
        *LIGHTS,
        *WEATHERS,
        *SIDES,
        *TIMES.values(),
        *NUMBERS,
    ]
    lines = [f" {w}" for w in words] + [w.capitalize() for w in words] + [f"{w.capitalize()}." for w in words]
    for kind in KINDS:
        lines += [f"Is there a {kind}?", f"How many {PLURALS[kind]} are there?", f"Where is the {kind}?"]
        lines += [f"What colour is the {kind}?", f"What is the {kind} doing?", f"Are there no {PLURALS[kind]}?"]
        for c in COLOURS:
            things = [Thing(kind, c, a, x / 3 + 0.1) for a in DOES.get(kind, ("left",)) for x in range(3)]
            lines += [_sentence(t.phrase) for t in things]
            lines += [f"A {t.noun} {change}." for t in things[:1] for change in ("came", "went", "moved")]
            lines += [f"A {t.noun} is {t.doing} now." for t in things[::3]]
    lines += [DESCRIBE, "What colour is the person wearing?", "What is on the left?", "What is in the middle?"]
    lines += ["What place is this?", "What time of day is it?", "Is it raining?", "Is it night?", "Is this a street?"]
    lines += ["Is the street empty?", "Is the yard empty?", "Is nobody there?", CHANGED, "Did anything change?"]
    lines += ["Nothing changed.", *(f"It is {light} now." for light in LIGHTS)]
    lines += [
        "Is this an office?",
        "An office by day in the rain. Nothing is there.",
        "Yes.",
        "No.",
        "A red car and a dog.",
    ]
    return lines


def _only(things: Sequence[Thing], kind: str | None) -> Thing | None:
    same = [t for t in things if t.kind == kind]
    return same[0] if len(same) == 1 else None


def _present_kind(things: Sequence[Thing], rng: np.random.Generator) -> str | None:
    return things[int(rng.integers(len(things)))].kind if things else None


def _present_or_any(things: Sequence[Thing], rng: np.random.Generator) -> str:
    """A kind that is there as often as one that may not be: of twelve kinds few are, and a no would be right mostly."""
    kinds = sorted({t.kind for t in things})
    return _pick(rng, kinds) if kinds and rng.random() < 0.5 else _pick(rng, KINDS)


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _yes(fact: bool) -> str:
    return "Yes." if fact else "No."


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
