"""What comes of one frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from agent.coherence.cuts import Cut
from agent.coherence.quality import NOTHING_SEEN, Quality
from engines.plan import Mode, TokenMap
from engines.preprocess import Placement
from vpi_ops.interface import FlowField


@dataclass(frozen=True, slots=True)
class FrameResult:
    """One handled frame. Arrays are views into the pipeline and valid until its next call; copy what must last.

    frame_index: of the frame. text: the answer to the query, None without one. mode: how the frame was handled.
    tokens_encoded: tokens that ran through the network. avg_motion: mean over tokens that see picture of motion, 0–1.
    cut: a new scene begins with this frame, or began up to two frames ago and is known only now. shot: the new shot
    that was found with this frame, None mostly; its own frame lies up to two back. audited: besides the plan there
    was a full encode, whose result this is. fidelity: what the fidelity of late is estimated to be, None without an
    estimate. coherence: C(t), correlation with the frame before, -1 to 1, None where there is none. quality: ghosts and
    flicker of `accumulated`.
    stages_ms: milliseconds by stage, together the whole frame.

    tokens: the token map before blending in time. accumulated: float32 (T, D), blended. dirty: int64 (n,), slots
    encoded, None = all. fetch: int64 (T,), the slot whose token each slot took over, None = its own. reasons: why
    they are dirty, as counts. residual: float32 (T,), grey levels against what each token was made
    from. changed: bool (T,), content differs from what the token was made from. moving: bool (T,), pixels differ from
    the frame before. motion: float32 (T, 2), (x, y) source pixels to where the content was a frame ago; 0 where
    nothing moved or there was no flow. flow: dense flow, None when nothing moved or it was late. seen: bool (T,),
    tokens that see picture. picture: uint8 RGB (S, S, 3), what the model saw; placement: where that lies in the frame,
    which slides when the camera moves. camera_px: (x, y) source pixels by which the camera moved the content. slid:
    int64 (T,), the slot that each slot's content was in before the grid stepped, and revealed: bool (T,), slots whose
    content came into view with that; None when it didn't. reframed: the picture shows another part of the frame than
    before, and slots compare with nothing."""

    frame_index: int
    mode: Mode
    tokens_encoded: int
    avg_motion: float
    tokens: TokenMap
    accumulated: NDArray[np.float32]
    dirty: NDArray[np.int64] | None
    residual: NDArray[np.float32]
    changed: NDArray[np.bool_]
    moving: NDArray[np.bool_]
    motion: NDArray[np.float32]
    seen: NDArray[np.bool_]
    picture: NDArray[np.uint8] | None = None
    placement: Placement | None = None
    camera_px: tuple[float, float] = (0.0, 0.0)
    slid: NDArray[np.int64] | None = None
    revealed: NDArray[np.bool_] | None = None
    reframed: bool = False
    cut: bool = False
    audited: bool = False
    fidelity: float | None = None
    coherence: float | None = None
    quality: Quality = NOTHING_SEEN
    shot: Cut | None = None
    flow: FlowField | None = None
    fetch: NDArray[np.int64] | None = None
    reasons: Mapping[str, int] = field(default_factory=dict)
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    text: str | None = None
