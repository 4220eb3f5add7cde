"""The coherent path: one frame in, its token map out, and only what changed is encoded.

    picture → residual against the reference → cut? → flow, where something moved → fetch what moved by whole patches
    → plan → encode → drift transfer → accumulate

A stage that fails costs the frame its coherence: everything temporal is forgotten and the frame is encoded in full. If
that fails too, the last good result stands with mode `error`. Nothing is raised out of `process` but misuse.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from agent.capture.frame import Frame
from agent.coherence.accumulator import Accumulator
from agent.coherence.costs import EncodeCosts
from agent.coherence.cuts import CutVerdict, Glance, SceneCuts, token_cosines
from agent.coherence.drift import DriftTransfer
from agent.coherence.fidelity import FidelityControl
from agent.coherence.gridlock import GridLock, Slide
from agent.coherence.motion import MotionStage, motion_share
from agent.coherence.profile import Profile
from agent.coherence.quality import QualityWatch, correlation
from agent.coherence.reckoning import Assessment
from agent.coherence.result import FrameResult
from agent.coherence.settings import CoherenceSettings
from agent.coherence.stopwatch import Stopwatch
from agent.coherence.view import View
from agent.coherence.warping import Fetch
from engines.plan import EncodePlan, Encoder, Mode, TokenMap
from engines.preprocess import Placement
from vpi_ops.interface import FlowField, VisionOps

Picture = NDArray[np.uint8]
Floats = NDArray[np.float32]
Describer = Callable[[Frame, FrameResult, str], str]

_LEAST_FETCH = 0.05
"""Share of the grid below which fetching saves less than the consistency check of the flow costs."""

_SAME_GLANCE = 2.0
"""Grey levels by which the mean of a patch may differ for the last glance at the picture to hold."""

_LONG_REST = 5
"""Flow rests so many times longer after a frame that took the full encode all the same."""

_log = structlog.get_logger(__name__)


class Pictures(Protocol):
    """What the coherent path needs of `engines.preprocess.Preprocessor`."""

    def picture(self, image: NDArray[np.uint8], *, crop: tuple[int, int, int, int] | None = None) -> Picture: ...

    def placement(self, frame_size: tuple[int, int]) -> Placement: ...


class TemporalVLM:
    """The coherent path of one camera. Not thread-safe.

    costs: what encoding costs here; measured now when not given. describer: answers queries from a frame and its
    result. faults: how often each stage has failed so far. profile: where the time of all frames went."""

    def __init__(
        self,
        preprocessor: Pictures,
        encoder: Encoder,
        ops: VisionOps,
        settings: CoherenceSettings | None = None,
        *,
        costs: EncodeCosts | None = None,
        describer: Describer | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.settings = s = settings or CoherenceSettings()
        self.costs = costs or EncodeCosts.measure(encoder)
        self.faults: Counter[str] = Counter()
        self.profile = Profile()
        self.fidelity = FidelityControl(s.fidelity_floor, audit_frames=s.audit_frames)
        self._pictures, self._encoder, self._ops, self._describer = preprocessor, encoder, ops, describer
        self._grid = encoder.grid
        self._tokens = encoder.grid[0] * encoder.grid[1]
        self._watch = Stopwatch(clock)
        self._motion = MotionStage(ops, deadline_s=s.flow_deadline_ms / 1e3)
        self._cuts = SceneCuts(ops.histogram_distance, reset=s.cut_reset)
        self._drift = DriftTransfer(self._tokens, encoder.dim, share=s.drift_transfer)
        self._accumulator = Accumulator(ops, encoder.grid, static=s.ema_static, fast=s.ema_fast)
        self._quality = QualityWatch(self._tokens, encoder.dim)
        self._current, self._previous, self._reference = (
            ops.pyramid(encoder.grid, encoder.patch_size) for _ in range(3)
        )
        self._features = ops.tokens(self._tokens, encoder.dim)
        self._anchor = np.zeros((self._tokens, encoder.dim), np.float32)
        self._since_full = np.zeros(self._tokens, np.float32)
        self._nothing = np.zeros(self._tokens, np.float32)
        self._still = np.zeros((self._tokens, 2), np.float32)
        self._moved, self._flow_rest = self._still, 0
        self._glance: Glance | None = None
        self._glanced = np.zeros(self._tokens, np.float32)
        self._frame_size = (0, 0)
        self._lock: GridLock | None = None
        self._whole: View
        self._slid: View | None = None
        self._view: View | None = None
        self._out_of_date = 0.0
        self._last: FrameResult | None = None
        self._fresh = True
        self._scene_began = -1

    @property
    def late_flows(self) -> int:
        """How many flows came after their deadline and were dropped."""
        return self._motion.late

    @property
    def holdings(self) -> dict[str, object]:
        """What holds memory, by part, for `agent.coherence.memory.by_part`."""
        return {
            "frames": (self._motion.picture, self._last and self._last.picture),
            "pyramids": (self._current, self._previous, self._reference),
            "cache": self._encoder,
            "flow": (self._motion, self._ops),
            "tokens": vars(self),
        }

    def process(self, frame: Frame, query: str | None = None) -> FrameResult:
        """Handle one frame; with a query its answer is waited for. Raises ValueError for a query without a
        describer."""
        if query is not None and self._describer is None:
            raise ValueError("a query needs a describer, and none was given")
        self._watch.start()
        try:
            result = self._coherent(frame)
        except Exception as error:  # a frame enters here: whatever fails costs this frame its coherence, no more
            self._count_fault(error)
            result = self._plain(frame)
        if query is not None:
            result = replace(result, text=self._answer(frame, result, query))
        self._last = result = replace(result, stages_ms=self._watch.stop())
        self.profile.add(result.stages_ms)
        return result

    def reset(self) -> None:
        """Forget every frame so far; the next one is encoded in full."""
        self._fresh = True
        self._forget()
        self._out_of_date = 0.0
        if self._lock is not None:
            self._lock.reset()
        self._cuts.reset()
        self._glance = None
        self._scene_began = -1
        self._motion.reset()
        self._encoder.reset()

    def tune(self, settings: CoherenceSettings) -> None:
        """Go on with other settings; nothing is forgotten. The floor of fidelity stays as it was given at first."""
        s = self.settings = replace(settings, fidelity_floor=self.settings.fidelity_floor)
        self._cuts.worth_reset = s.cut_reset
        self._accumulator.keep(static=s.ema_static, fast=s.ema_fast)
        for view in (self._view, self._whole if self._view is not None else None, self._slid):
            if view is not None:
                view.planner.settings = s
                view.warp.limit(left_px=20 * s.motion_low, error_px=s.flow_error_px)

    def close(self) -> None:
        """Let the flow thread end, and give back what is held on a GPU."""
        self._motion.close()
        self._ops.close()
        self._encoder.close()

    def _coherent(self, frame: Frame) -> FrameResult:
        lap = self._watch.lap
        lap("preprocess")
        slide = self._enter(frame)
        before = self._view
        view = self._view_of(slide)
        reframed = before is not None and (view is not before or (slide is not None and slide.entered))
        placement = view.placement if slide is None else view.placement.slid(slide.crop)
        picture = None if reframed else self._as_before(frame, placement)
        still = picture is not None
        if picture is None:
            picture = self._pictures.picture(frame.image, crop=placement.crop)
        lap("residual")
        if not still:
            self._previous, self._current = self._current, self._previous
            self._ops.fill(self._current, picture)
        residual, look = self._look(view, slide, still)
        coherence = None if self._fresh else 1.0 if still else self._coherence(view, slide)
        lap("cut")
        verdict, cut, tokens = self._suspect(frame.index, picture, still)
        if cut and tokens is not None:
            self._forget()
            residual, look = _nothing_known(self._tokens)
        lap("flow")
        known = not self._fresh and tokens is None
        rested = self._flow_rest == 0
        flow = self._motion.process(frame, look.moving, view.sampler, wanted=known, dense=rested)
        camera_px = (0.0, 0.0) if slide is None else slide.camera_px
        if flow is not None:
            self._moved = view.sampler.backward(flow) + np.array(camera_px, np.float32)
        backward = self._moved * look.moving[:, None]
        lap("plan")
        if tokens is not None:
            reason = "cut" if cut else "suspected_cut"
            plan = EncodePlan(Mode.SCENE_CUT_FULL if cut else Mode.FULL, None, reasons={reason: self._tokens})
        elif self._fresh:
            plan = EncodePlan(Mode.FULL, None, reasons={"first": self._tokens})
        elif slide is not None and slide.source is not None and view.planner.coarse.any():
            plan = EncodePlan(Mode.FULL, None, reasons={"coarse": self._tokens})  # coarse cells don't step with a grid
        else:
            plan = view.planner.plan(residual, look, self._fetch(view, flow, backward, look))
        if tokens is None:
            lap("encode")
            tokens = self._encoder.encode(picture, _after_slide(plan, slide))
            self.costs.observed(tokens.encoded, lap("plan"))
        self._commit(view, plan, tokens, look)
        audited = not plan.full and self.fidelity.audit_due
        if audited:
            lap("audit")
            tokens = replace(self._audit(view, picture), encoded=tokens.encoded)
        elif plan.full:
            self.fidelity.audit_later()
        if flow is None:
            self._flow_rest = max(0, self._flow_rest - 1)
        elif plan.fetch is None:
            self._flow_rest = self.settings.flow_rest_frames * (_LONG_REST if plan.full else 1)
        lap("blend")
        changed = look.stale if plan.fetch is None else look.stale & (plan.fetch == np.arange(self._tokens))
        share = motion_share(backward)
        shift = None if flow is None else (backward / view.patch_px)[:, ::-1]
        steady = tokens.encoded == 0 and plan.fetch is None and not audited
        accumulated = self._accumulator.process(self._features, share, changed, shift, steady=steady)
        touched, now_s = changed | look.moving, frame.monotonic_ns / 1e9
        quality = self._quality.process(accumulated, self._features, touched, now_s, again=self._accumulator.at_rest)
        return FrameResult(
            frame_index=frame.index,
            mode=plan.mode,
            tokens_encoded=tokens.encoded,
            avg_motion=float(share[view.seen].mean()),
            tokens=replace(tokens, features=self._features),
            accumulated=accumulated,
            dirty=_encoded(plan, tokens),
            residual=residual,
            changed=changed,
            moving=look.moving,
            motion=backward,
            seen=view.seen,
            picture=picture,
            placement=placement,
            camera_px=camera_px,
            slid=None if slide is None else slide.source,
            revealed=None if slide is None else slide.revealed,
            reframed=reframed,
            cut=cut,
            shot=verdict.found,
            audited=audited,
            fidelity=self.fidelity.estimate,
            coherence=coherence,
            quality=quality,
            flow=flow,
            fetch=plan.fetch,
            reasons=plan.reasons,
        )

    def _enter(self, frame: Frame) -> Slide | None:
        """Where to look in this frame. What came before a discontinuity or another size is forgotten."""
        if self._lock is None or self._frame_size != frame.size:
            placement = self._pictures.placement(frame.size)
            self._frame_size = frame.size
            self._lock = GridLock(self._ops, self._grid, placement.crop)
            self._whole, self._slid, self._view = self._make_view(placement), None, None
            self.reset()
        elif frame.discontinuity and not self._fresh:
            self.reset()
        if self._whole.seen.all():
            return self._lock.process(frame.image, self._out_of_date)
        return None  # the grid can't slide over a letterbox's padding

    def _view_of(self, slide: Slide | None) -> View:
        """The view for this frame. Where it is another than before, or the grid has stepped, what is remembered is
        forgotten or moved."""
        if slide is None:
            view = self._whole
        else:
            if self._slid is None:
                self._slid = self._make_view(self._whole.placement.slid(slide.crop))
            view = self._slid
        if view is not self._view or (slide is not None and slide.entered):
            self._fresh = True
            self._view = view
            self._forget()
        elif slide is not None and slide.source is not None and not self._fresh:
            source = slide.source
            for pyramid in (self._reference, self._current):  # `current` is still the frame before
                self._ops.fetch(pyramid, source)
            self._features[...] = self._features[source]
            self._since_full = 1 - token_cosines(self._features, self._anchor)
            self._drift.fetch(source)
            self._accumulator.fetch(source)
            self._quality.fetch(source)
            view.planner.slid(source, slide.steps)
            view.warp.slid(source)
        return view

    def _make_view(self, placement: Placement) -> View:
        patch = self._encoder.patch_size
        return View.of(placement, self._grid, patch, self._ops, self.settings, self.costs, self.fidelity)

    def _as_before(self, frame: Frame, placement: Placement) -> Picture | None:
        """The picture of the frame before, where this one is the same bit for bit, as in a stopped stream."""
        before, last = self._motion.picture, self._last
        if self._fresh or before is None or last is None or last.placement != placement:
            return None
        return last.picture if self._ops.same(frame.image, before) else None

    def _look(self, view: View, slide: Slide | None, still: bool) -> tuple[Floats, Assessment]:
        """Residual (T,) and what is stale. still: the picture is that of the frame before."""
        if self._fresh:
            self._out_of_date = 0.0
            return _nothing_known(self._tokens)
        residual = self._ops.residual(self._current, self._reference).patch
        since_full = float(self._since_full[view.seen].sum())
        moved = self._nothing if still else self._ops.moved(self._current, self._previous)
        look = view.planner.assess(residual, moved, since_full)
        self._out_of_date = float(look.stale[view.seen].mean())
        if slide is not None and slide.revealed is not None:
            look = replace(look, stale=look.stale | slide.revealed)
        return residual, look

    def _coherence(self, view: View, slide: Slide | None) -> float:
        """C(t) of this frame and the one before, where the grid shows the same in both."""
        counted = view.seen if slide is None or slide.revealed is None else view.seen & ~slide.revealed
        return correlation(self._current.levels[-1], self._previous.levels[-1], counted)

    def _suspect(self, index: int, picture: Picture, still: bool) -> tuple[CutVerdict, bool, TokenMap | None]:
        """What the frames in brief say of a cut, whether a new scene is known to have begun that was not known before,
        and the full encode that a suspicion costs."""
        means = self._ops.means(self._current)
        if self._glance is None or (not still and float(np.abs(means - self._glanced).max()) > _SAME_GLANCE):
            self._glance = Glance.take(self._ops, self._current)
            self._glanced[...] = means
        verdict = self._cuts.process(index, self._glance)
        tokens = None
        cut = verdict.found is not None and self._scene_began < verdict.found.start
        if verdict.reset:
            self._watch.lap("encode")
            tokens = self._encoder.encode(picture, EncodePlan(Mode.FULL, None))
            self._watch.lap("cut")
            if not self._fresh:
                cut |= float(token_cosines(self._features, tokens.features).mean()) < self.settings.cut_features
        if cut:
            self._scene_began = index
        return verdict, cut, tokens

    def _fetch(self, view: View, flow: FlowField | None, backward: Floats, look: Assessment) -> Fetch | None:
        """Tokens to take over from other slots, where that saves more than the flow check costs."""
        if flow is None or not look.stale.any() or view.planner.coarse.any():
            return None

        def error() -> Floats | None:
            checked = self._motion.check(flow)
            return None if checked is None else view.sampler.error(checked)

        return view.warp.process(
            backward,
            look.stale,
            view.seen,
            error=error,
            residual_at=lambda slots, sources: self._ops.residual_at(self._current, slots, self._reference, sources),
            threshold=look.threshold,
            least=math.ceil(_LEAST_FETCH * self._tokens),
        )

    def _commit(self, view: View, plan: EncodePlan, tokens: TokenMap, look: Assessment) -> None:
        """Every state follows what was encoded: reference pixels, pressure, anchors, corrections; then the output."""
        new, dirty = tokens.features, _encoded(plan, tokens)
        stale = look.stale
        if dirty is None:
            nothing_known = self._fresh or plan.mode is Mode.SCENE_CUT_FULL
            error = np.zeros(0, np.float32) if nothing_known else 1 - token_cosines(self._features, new)
            self._ops.adopt(self._reference, self._current, None)
            view.planner.encoded(None, error, stale)
            view.warp.encoded(None)
            self._drift.reset()
            self._keep_anchor(new)
            self._fresh = False
            return
        if plan.fetch is not None:
            self._ops.fetch(self._reference, plan.fetch)
            self._drift.fetch(plan.fetch)
            self._features[...] = self._features[plan.fetch]
        if not len(dirty) and plan.fetch is None:
            view.planner.encoded(dirty, np.zeros(0, np.float32), stale, coarse=tokens.coarse)
            return
        before = self._features[dirty]
        error = 1 - token_cosines(before, new[dirty])
        clean = ~stale[dirty]
        self._drift.process(self._features, dirty[clean], new[dirty[clean]] - before[clean], dirty)
        self._ops.adopt(self._reference, self._current, dirty)
        view.planner.encoded(dirty, error, stale, plan.fetch, tokens.coarse)
        view.warp.encoded(dirty)
        self._drift.apply(new, self._features, dirty)
        self._since_full[dirty] = 1 - token_cosines(self._features[dirty], self._anchor[dirty])

    def _audit(self, view: View, picture: Picture) -> TokenMap:
        """A full encode besides the planned one: measures the error of what we have, and clears it."""
        expected = view.planner.expected
        tokens = self._encoder.encode(picture, EncodePlan(Mode.FULL, None))
        error = 1 - token_cosines(self._features, tokens.features)
        self.fidelity.audited(expected, float(error[view.seen].mean()))
        self._ops.adopt(self._reference, self._current, None)
        view.planner.encoded(None, error, ~view.seen)
        view.warp.encoded(None)
        self._drift.reset()
        self._keep_anchor(tokens.features)
        return tokens

    def _keep_anchor(self, features: Floats) -> None:
        """These are of a full encode, and what follows is compared with them."""
        self._features[...] = features
        self._anchor[...] = features
        self._since_full[...] = 0

    def _forget(self) -> None:
        """Drop all temporal state but the encoder's cache, which a full encode replaces, and what the next frame is
        compared with."""
        if self._view is not None:
            self._view.planner.reset()
            self._view.warp.reset()
        self._drift.reset()
        self._accumulator.reset()
        self._quality.reset()
        self._moved, self._flow_rest = self._still, 0

    def _plain(self, frame: Frame) -> FrameResult:
        """A full encode with nothing temporal around it; the last good result when that fails too."""
        self._watch.lap("encode")
        try:
            self.reset()
            picture = self._pictures.picture(frame.image)
            plan = EncodePlan(Mode.FULL, None, reasons={"fault": self._tokens})
            tokens = self._encoder.encode(picture, plan)
        except Exception as error:  # nothing is left to try; the camera goes on with its next frame
            self._count_fault(error)
            return self._stand_in(frame, Mode.ERROR, self._last)
        self._features[...] = tokens.features
        whole = self._stand_in(frame, Mode.FULL, None)
        everything = np.ones(self._tokens, bool)
        return replace(
            whole,
            tokens_encoded=tokens.encoded,
            dirty=None,
            changed=everything,
            moving=everything,
            reasons=plan.reasons,
        )

    def _stand_in(self, frame: Frame, mode: Mode, last: FrameResult | None) -> FrameResult:
        """A result in which nothing happened: with the features of `last`, or those of now."""
        nothing = np.zeros(self._tokens, bool)
        return FrameResult(
            frame_index=frame.index,
            mode=mode,
            tokens_encoded=0,
            avg_motion=0.0,
            tokens=TokenMap(self._features if last is None else last.tokens.features, self._grid, 0),
            accumulated=self._features if last is None else last.accumulated,
            dirty=np.zeros(0, np.int64),
            residual=np.zeros(self._tokens, np.float32),
            changed=nothing,
            moving=nothing,
            motion=self._still,
            seen=~nothing if self._view is None else self._view.seen,
        )

    def _answer(self, frame: Frame, result: FrameResult, query: str) -> str | None:
        self._watch.lap("text")
        try:
            return None if self._describer is None else self._describer(frame, result, query)
        except Exception as error:  # an answer that fails leaves the frame as it is
            self._count_fault(error)
            return None

    def _count_fault(self, error: Exception) -> None:
        stage = self._watch.stage
        self.faults[stage] += 1
        count = self.faults[stage]
        if count & (count - 1) == 0:  # the 1st, 2nd, 4th, 8th …: a camera that fails for hours doesn't fill the log
            _log.warning("frame stage failed", stage=stage, error=f"{type(error).__name__}: {error}", times=count)


def _after_slide(plan: EncodePlan, slide: Slide | None) -> EncodePlan:
    """The plan for an encoder whose slots have not stepped with the grid."""
    if plan.full or slide is None or slide.source is None:
        return plan
    return replace(plan, fetch=slide.source if plan.fetch is None else slide.source[plan.fetch])


def _encoded(plan: EncodePlan, tokens: TokenMap) -> NDArray[np.int64] | None:
    """Slots that have a new value, those of coarse cells too; None = all, which an encoder may choose to do."""
    if plan.dirty is None or tokens.encoded == len(tokens.features):
        return None
    if plan.coarse is None:
        return plan.dirty
    right, below = 1, tokens.grid[1]
    return np.sort(np.concatenate([plan.dirty, *(plan.coarse + step for step in (0, right, below, below + right))]))


def _nothing_known(tokens: int) -> tuple[Floats, Assessment]:
    """There is nothing to compare with: no residual, and everything counts as changed."""
    everything, zero = np.ones(tokens, bool), np.zeros(tokens, np.float32)
    return zero, Assessment(everything, everything, zero, zero, zero)
