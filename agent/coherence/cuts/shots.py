"""Cuts of one camera, as two answers to two questions.

Is what was kept of earlier frames still worth anything? That must be known at once, and doubt costs one full encode:
`reset`, tuned for recall. Did a new shot begin, and where? That can wait two frames: `found`, tuned for F1.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.coherence.cuts.adaptive import AdaptiveCut
from agent.coherence.cuts.dissolve import Dissolve
from agent.coherence.cuts.fade import Fade
from agent.coherence.cuts.glance import Difference, Distance, Glance
from agent.coherence.cuts.recent import LOOKAHEAD, Cut, Recent

_RESET_WINDOW = 4
_RESET_RATIO = 1.5


@dataclass(frozen=True, slots=True)
class CutVerdict:
    """What is known with one more frame. reset: forget what was kept of earlier frames. found: a new shot that began up
    to two frames ago. change: from the frame before to this one, None for the first."""

    reset: bool = False
    found: Cut | None = None
    change: Difference | None = None


class SceneCuts:
    """Hard cuts, dissolves and fades of one camera from its frames in brief.

    distance: Bhattacharyya, of the backend that makes the histograms. cut, gradual: score between two shots. reset:
    score between two neighbouring frames that is worth a full encode; as `worth_reset` it may change on the way."""

    lookahead = LOOKAHEAD

    def __init__(self, distance: Distance, *, cut: float = 0.32, gradual: float = 0.35, reset: float = 0.15) -> None:
        self._recent = Recent(distance)
        self._hard, self._dissolve = AdaptiveCut(least=cut), Dissolve(least=gradual)
        self._fade = Fade(distance, least=gradual)
        self.worth_reset = reset
        self._reset_at = -1

    def reset(self) -> None:
        """Forget every frame: the next one has nothing to differ from."""
        self._recent.clear()
        self._fade.reset()
        self._reset_at = -1

    def process(self, index: int, glance: Glance) -> CutVerdict:
        """One more frame; index: its number in the video. Frames of another grid need `reset` first."""
        recent = self._recent
        recent.add(index, glance)
        found = self._judge(recent.last - LOOKAHEAD) if recent.last >= LOOKAHEAD else None
        if recent.last == 0:
            return CutVerdict()
        reset = self._jumped() or (found is not None and (found.kind != "cut" or self._reset_at < found.start))
        if reset:
            self._reset_at = index
        return CutVerdict(reset, found, recent.difference(recent.last - 1, recent.last))

    def flush(self) -> list[Cut]:
        """At the end of the video: what the last frames say without any to follow."""
        last = self._recent.last
        judged = (self._judge(place) for place in range(max(0, last - LOOKAHEAD + 1), last + 1))
        return [cut for cut in judged if cut is not None]

    def _judge(self, place: int) -> Cut | None:
        recent = self._recent
        was_active = self._fade.active
        found = self._fade.judge(recent, place)
        if found is None and not self._fade.active and not was_active:
            found = self._hard.judge(recent, place) or self._dissolve.judge(recent, place)
        if found is not None:
            recent.shot = place
        return found

    def _jumped(self) -> bool:
        """Whether the newest frame differs from the one before it, and more than is usual."""
        recent = self._recent
        step = recent.step(recent.last)
        if step < self.worth_reset:
            return False
        before = [recent.step(k) for k in range(max(recent.oldest + 1, recent.last - _RESET_WINDOW), recent.last)]
        return not before or step > _RESET_RATIO * sum(before) / len(before)
