"""Fidelity held by itself: the user sets a floor, and this decides how much error a frame may keep.

What a quiet stretch does not use of its allowance, a busy one may, up to twice its share: so the mean comes to the
floor and no single frame goes far below. Full encodes at a small rate audit the expectation, often at first.
"""

from __future__ import annotations

from agent.coherence.staleness import Staleness

_HORIZON = 0.01
"""Share of a frame in the running mean of error: about the last hundred count."""
_MOST, _LEAST = 2.0, 0.5
"""Bounds of one frame's allowance, in shares of 1 − floor."""
_FIRST_AUDIT = 30


class FidelityControl:
    """Control of one camera. floor: mean cosine to hold. audit_frames: frames between audits once it has settled.
    staleness: the model whose expectation audits correct."""

    def __init__(self, floor: float, *, audit_frames: int) -> None:
        self.floor = floor
        self.staleness = Staleness()
        self._error = 1 - floor
        self._most_frames = audit_frames
        self._audit_in = self._gap = min(_FIRST_AUDIT, audit_frames)

    @property
    def estimate(self) -> float:
        """Fidelity of late, as far as it is known: a running mean of expected errors, corrected by audits."""
        return 1 - self._error

    @property
    def allowed(self) -> float:
        """Mean expected error per token that the next frame may keep."""
        share = 1 - self.floor
        unused = (share - self._error) / share if share else 0.0
        return share * min(_MOST, max(_LEAST, 1 + unused)) / self.staleness.scale

    @property
    def audit_due(self) -> bool:
        return self._audit_in <= 0

    def frame(self, expected: float, encoded: int) -> None:
        """A frame was handled that keeps this mean expected error; `encoded` tokens were run."""
        self._error += _HORIZON * (expected * self.staleness.scale - self._error)
        if encoded or expected > 2 * self.staleness.fresh:  # else nothing new can go wrong
            self._audit_in -= 1

    def audited(self, expected: float, measured: float) -> None:
        """A full encode showed what error the frame really had."""
        self.staleness.audit(expected, measured)
        self._gap = min(3 * self._gap, self._most_frames)
        self._audit_in = self._gap

    def audit_later(self) -> None:
        """There was a full encode for another reason: it cleared all error."""
        self._audit_in = self._gap
