"""What happens in a view: entering, leaving, falling, leaving a bag or a box, as far as its camera sees it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.capture.scene.actor import Actor
from agent.capture.scene.truth import SceneEvent
from agent.capture.scene.view import View

_STEP_S = 0.05
_WHOLE = 0.98  # this much of its width in the picture counts as all


def happenings(view: View, start_s: float, end_s: float) -> list[SceneEvent]:
    """Events that are over by `end_s` and begin after `start_s`, in seconds of the view, in no order."""
    found = []
    for actor in view.timeline.between(start_s, end_s):
        times = np.arange(max(start_s, actor.start_s), min(end_s, actor.end_s), _STEP_S)
        if len(times) == 0:
            continue
        shares = _in_picture(view, actor, times)
        found += _comings(actor, times, shares, start_s, end_s)
        for leg in actor.legs:
            falls = leg.action == "falling" and start_s <= leg.start_s and leg.end_s <= end_s
            if falls and np.interp(leg.end_s, times, shares) > 0.3:
                found.append(SceneEvent("fall", leg.start_s, leg.end_s, actor.id))
    return found


def _in_picture(view: View, actor: Actor, times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the actor's width inside the picture at each time; its outline is taken once a leg."""
    reach: dict[float, tuple[float, float]] = {}
    shares = np.empty(len(times))
    for i, t in enumerate(times):
        leg = next(leg for leg in actor.legs if t < leg.end_s)
        if leg.start_s not in reach:
            reach[leg.start_s] = _reach(view, actor, (leg.start_s + leg.end_s) / 2)
        now = actor.at(t)
        assert now is not None  # times lie inside the life
        x = now[0].x * view.scale - view.camera.offset(t)[0]
        size = now[0].size * view.scale
        left, right = x + reach[leg.start_s][0] * size, x + reach[leg.start_s][1] * size
        shares[i] = max(0.0, min(right, view.size[0]) - max(left, 0.0)) / (right - left)
    return shares


def _reach(view: View, actor: Actor, t: float) -> tuple[float, float]:
    """How far the actor reaches left and right of its ground point, in its size."""
    now = view.figure(actor, t)
    assert now is not None
    x, _, w, _ = now.box
    return (x - now.pose.x) / now.pose.size, (x + w - now.pose.x) / now.pose.size


def _comings(
    actor: Actor, times: NDArray[np.float64], shares: NDArray[np.float64], start_s: float, end_s: float
) -> list[SceneEvent]:
    """An `enter` (for what is put down: `leave_object`) and a `leave` for each stretch of time in the picture."""
    found = []
    inside = np.flatnonzero(np.diff(np.concatenate([[False], shares > 0, [False]]).astype(np.int8)))
    for first, after in zip(inside[::2], inside[1::2], strict=True):
        run = shares[first:after]
        whole = np.flatnonzero(run >= min(_WHOLE, run.max()))
        over = after < len(times) or actor.end_s <= end_s
        if first > 0 or actor.start_s > start_s:
            if actor.look.kind in ("bag", "box") and first == 0:
                found.append(SceneEvent("leave_object", actor.start_s, actor.start_s, actor.id))
            elif over or run.max() >= _WHOLE:
                found.append(SceneEvent("enter", float(times[first]), float(times[first + whole[0]]), actor.id))
        if over:
            gone = float(times[after]) if after < len(times) else actor.end_s
            last = gone if run[-1] >= _WHOLE else float(times[first + whole[-1]])
            found.append(SceneEvent("leave", last, gone, actor.id))
    return found
