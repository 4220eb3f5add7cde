"""How good the committed model is, asked through the product's own engine about pictures that training never sees."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from agent.bench import bench
from agent.bench.measure import Wanted
from agent.capture.scene import random_still
from agent.capture.scene.language import (
    CHANGED,
    DESCRIBE,
    MIN_VISIBLE,
    Question,
    Thing,
    caption,
    presence,
    questions,
    things_in,
    what_changed,
)
from agent.capture.scene.pair import random_pair
from agent.capture.scene.truth import KINDS
from agent.coherence.cuts import token_cosines
from engines.calibration import expected_calibration_error, fit_yes_no
from engines.decoder import Decoder
from engines.manifest import Model, find_model, load_model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.plan import EncodePlan, Mode, cells_of
from engines.preprocess import Preprocessor
from scripts.training.pictures import FRAME, clips

UNSEEN, HELD_OUT = 990_001, 990_002


class Asked:
    """A model that is asked."""

    def __init__(self, model: Model) -> None:
        self.encoder = OnnxEncoder(OnnxRuntime(model, spin=False))
        self.decoder = Decoder(model, threads=2, spin=False)
        self._pictures = Preprocessor(model.manifest)

    def features(self, image: np.ndarray) -> np.ndarray:
        return self.encoder.encode_full(self._pictures.picture(image))

    def picture(self, image: np.ndarray) -> np.ndarray:
        return self._pictures.picture(image)

    def answer(self, seen: Any, ask: str) -> str:
        return "".join(self.decoder.generate(seen, ask, max_tokens=128)).strip()


def calibration(model: Model, frames: int = 250) -> tuple[float, float]:
    """Slope and offset for the model's log-odds of yes, fitted on the yes/no questions of `frames` pictures."""
    asked = Asked(model)
    odds: list[float] = []
    truth: list[bool] = []
    for i in range(frames):
        rng = np.random.default_rng((HELD_OUT, i))
        image, scene, _ = random_still(rng, *FRAME)
        seen = asked.decoder.look(asked.features(image))
        for question in _yes_no(questions(scene, things_in(scene, FRAME[0]), rng, 12)):
            odds.append(asked.decoder.yes_no_log_odds(seen, question.ask))
            truth.append(question.answer == "Yes.")
    return fit_yes_no(np.array(odds), np.array(truth))


def evaluate(frames: int, seed: int, data: Path) -> dict[str, Any]:
    """Presence: every kind is asked for in every picture (F1 over all answers). A thing whose middle lies within 3 % of
    the picture's width of a border between two thirds may be placed in either. Real clips, seen in training and not:
    fidelity of the coherent path at its defaults, over their first 80 frames."""
    model = load_model(find_model("reference"))
    asked = Asked(model)
    counts = {"true": 0, "said": 0, "both": 0}
    right: dict[str, list[bool]] = {}
    captions: list[bool] = []
    sure: list[float] = []
    truth: list[bool] = []
    progress = _Progress(frames)
    for i in range(frames):
        rng = np.random.default_rng((UNSEEN, seed, i))
        image, scene, _ = random_still(rng, *FRAME)
        seen = asked.decoder.look(asked.features(image))
        things = things_in(scene, FRAME[0])
        unsure = {o.kind for o in scene.objects if o.visible < MIN_VISIBLE}
        present = {kind: presence(things, kind) for kind in KINDS}
        kinds = [k for k in KINDS if k not in unsure or present[k].answer == "Yes."]
        others = questions(scene, things, rng, 8)
        plain = [present[k] for k in kinds] + _yes_no(others)
        probabilities = asked.decoder.yes_no_many(seen, [q.ask for q in plain])
        for question, p in zip(plain, probabilities, strict=True):
            there, said = question.answer == "Yes.", bool(p > 0.5)
            sure.append(float(p))
            truth.append(there)
            right.setdefault("yes_no", []).append(said == there)
            if question.topic == "absence":
                right.setdefault("absence", []).append(said == there)
        for kind, p in zip(kinds, probabilities, strict=False):
            there, said = present[kind].answer == "Yes.", bool(p > 0.5)
            counts["true"] += there
            counts["said"] += said
            counts["both"] += there and said
        for question in others:
            if question.answer not in ("Yes.", "No."):
                accepted = {question.answer, *near_border(things, question)}
                right.setdefault(question.topic, []).append(asked.answer(seen, question.ask) in accepted)
        captions.append(asked.answer(seen, DESCRIBE) == caption(scene, things))
        progress.at(i)
    _ask_of_pairs(asked, frames // 2, seed, right)
    precision, recall = counts["both"] / max(counts["said"], 1), counts["both"] / max(counts["true"], 1)
    result: dict[str, Any] = {
        "frames": frames,
        "presence_f1": round(2 * precision * recall / max(precision + recall, 1e-9), 4),
        "captions_word_for_word": round(float(np.mean(captions)), 4),
        "yes_no_calibration_error": round(expected_calibration_error(np.array(sure), np.array(truth)), 4),
    }
    for topic, answers in sorted(right.items()):
        result[f"{topic}_accuracy"] = round(float(np.mean(answers)), 4)
        result[f"{topic}_asked"] = len(answers)
    result["coarse"] = _coarse(asked, 40, seed)
    result["real_clips"] = _real(data)
    return result


def _yes_no(asked: list[Question]) -> list[Question]:
    return [q for q in asked if q.answer in ("Yes.", "No.")]


def _ask_of_pairs(asked: Asked, pairs: int, seed: int, right: dict[str, list[bool]]) -> None:
    """What changed between two pictures: whether anything did, and the whole answer word for word."""
    for i in range(pairs):
        (before, was, _), (after, now, _) = random_pair(np.random.default_rng((UNSEEN, seed, i, 2)), *FRAME)
        about = what_changed(was, now, FRAME[0])
        if not about:
            continue
        seen = asked.decoder.look(asked.features(after), before=asked.features(before))
        for question in about:
            topic = "what_changed" if question.ask == CHANGED else "changed"
            right.setdefault(topic, []).append(asked.answer(seen, question.ask) == question.answer)


def _coarse(asked: Asked, frames: int, seed: int) -> dict[str, float]:
    """Half of the cells encoded as one token each: mean cosine to a full encode, of their tokens and of the others."""
    cells = cells_of(asked.encoder.grid)
    rough: list[float] = []
    fine: list[float] = []
    for i in range(frames):
        rng = np.random.default_rng((UNSEEN, seed, i, 3))
        picture = asked.picture(random_still(rng, *FRAME)[0])
        truth = asked.encoder.encode_full(picture)
        chosen = np.sort(rng.permutation(len(cells))[: len(cells) // 2])
        others = np.sort(np.delete(cells, chosen, axis=0).ravel())
        asked.encoder.encode(picture, EncodePlan(Mode.FULL, None))
        made = asked.encoder.encode(picture, EncodePlan(Mode.HIERARCHICAL_DIFF, others, coarse=cells[chosen, 0]))
        cosines = token_cosines(made.features, truth)
        rough.append(float(cosines[made.coarse].mean()))
        fine.append(float(cosines[~made.coarse].mean()))
    return {"coarse_tokens": round(float(np.mean(rough)), 4), "fine_beside_them": round(float(np.mean(fine)), 4)}


def _real(data: Path) -> dict[str, dict[str, Any]]:
    """Fidelity and skill of the coherent path on real clips, and the share of tokens it encoded."""
    found: dict[str, dict[str, Any]] = {}
    for name, files in zip(("seen", "unseen"), clips(data), strict=True):
        for file in files:
            report = bench([str(file)], wanted=Wanted(frames=80))[0]
            encoded = report["tokens"]["encoded_per_s"] / report["tokens"]["full_per_s"]
            found[f"{file.parent.name}/{file.stem}"] = {
                "in_training": name == "seen",
                "fidelity": round(report["fidelity"]["mean"], 4),
                "p5": round(report["fidelity"]["p5"], 4),
                "skill": None if report["skill"] is None else round(report["skill"], 3),
                "encoded": round(encoded, 3),
            }
    return found


def near_border(things: list[Thing], question: Question) -> list[str]:
    """The other answer to «where», for a thing on the border of two thirds."""
    if question.topic != "position":
        return []
    one = next(t for t in things if question.ask == f"Where is the {t.kind}?")
    return [f"{replace(one, x=one.x + d).side.capitalize()}." for d in (-0.03, 0.03)]


class _Progress:
    def __init__(self, frames: int) -> None:
        self._frames, self._began = frames, time.monotonic()

    def at(self, i: int) -> None:
        if sys.stderr.isatty() or i % 50 == 49:
            print(
                f"asked about {i + 1}/{self._frames} pictures, {time.monotonic() - self._began:.0f} s", file=sys.stderr
            )
