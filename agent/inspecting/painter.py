"""The views of one frame: what was encoded and why, residual, flow, age, and how far blending lags."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.capture.frame import Frame
from agent.coherence.cuts import token_cosines
from agent.coherence.quality import Coherence
from agent.coherence.result import FrameResult
from agent.inspecting.drawing import (
    DIM,
    INK,
    LINE_PX,
    Colour,
    Picture,
    Size,
    Slots,
    blank,
    captioned,
    fit,
    flow_colours,
    grey,
    heat,
    outline,
    slot_map,
    tint,
    wheel,
    write,
)
from agent.inspecting.moments import Moment
from agent.inspecting.timeline import MODE_COLOURS, strip
from engines.preprocess import Placement

Floats = NDArray[np.float32]

RESIDUAL_WHITE, LAG_WHITE = 60.0, 0.3
"""Grey levels, and 1 − cosine, that are drawn white."""
OLDEST = 1000
"""Frames from which on a token is drawn as old as can be."""
_TILE_WIDTH, _LEAST_HEIGHT, _MOST_HEIGHT = 400, 200, 300
_STRIP_PX = 72
_LEAST_FULL_PX = 2.0
CHANGED: Colour = (255, 140, 0)
REFRESHED: Colour = (60, 150, 255)
FETCHED: Colour = (70, 210, 110)
COARSE: Colour = (190, 90, 240)
_CAUSES = (("changed", CHANGED), ("refreshed", REFRESHED), ("coarse", COARSE), ("fetched", FETCHED))
_GHOST: Colour = (80, 255, 255)


def tile_size(frame_size: Size) -> Size:
    """The size (width, height) of the views of frames of this size."""
    height = round(_TILE_WIDTH * frame_size[1] / frame_size[0])
    return _TILE_WIDTH, min(_MOST_HEIGHT, max(_LEAST_HEIGHT, height)) // 2 * 2


class Ages:
    """For how many frames each token has kept its value, wherever it went."""

    def __init__(self, tokens: int) -> None:
        self.frames = np.zeros(tokens, np.int64)

    def process(self, result: FrameResult) -> Slots:
        for source in (result.slid, result.fetch):
            if source is not None:
                self.frames = self.frames[source]
        self.frames = self.frames + 1
        self.frames[slice(None) if result.dirty is None or result.audited else result.dirty] = 0
        return self.frames


class View:
    """One frame, handled; each picture is made when it is asked for. ages: int64 (T,), frames."""

    def __init__(self, frame: Frame, result: FrameResult, ages: Slots, patch: int, tile: Size) -> None:
        self._frame, self._result, self._ages, self._tile = frame, result, ages.copy(), tile
        self._patch = patch
        self.moment = Moment.of(frame, result)
        self.title = f"frame {frame.index}, {self.moment.time_s:.2f} s"

    @cached_property
    def picture(self) -> Picture:
        return self._fitted[0]

    @cached_property
    def encoded(self) -> Picture:
        """Colours say why; the border of the part that the model looks at is drawn where that is not the whole."""
        result, tokens = self._result, len(self._result.changed)
        colours, opacity = np.zeros((tokens, 3), np.uint8), np.zeros(tokens, np.float32)
        dirty = np.zeros(tokens, bool)
        dirty[slice(None) if result.dirty is None else result.dirty] = True
        fetched = np.zeros(tokens, bool) if result.fetch is None else result.fetch != np.arange(tokens)
        causes = (dirty & result.changed, dirty & ~result.changed, dirty & result.tokens.coarse, fetched & ~dirty)
        thick = 0.25 if result.dirty is None else 0.5  # where all was encoded, the picture is to be seen
        for (_, colour), chosen in zip(_CAUSES, causes, strict=True):
            colours[chosen], opacity[chosen] = colour, thick
        return self._on_tile(tint(self._small, self._slots, colours, opacity))

    @cached_property
    def residual(self) -> Picture:
        return self._on_tile(heat(self._small, self._slots, self._result.residual / np.float32(RESIDUAL_WHITE)))

    @cached_property
    def age(self) -> Picture:
        """Logarithmic: each doubling is one step brighter."""
        return self._on_tile(heat(self._small, self._slots, _age_levels(self._ages)))

    @cached_property
    def lag(self) -> Picture:
        """Distance of the blended features from the current ones; ghosts are outlined."""
        picture = heat(self._small, self._slots, self.lags / np.float32(LAG_WHITE))
        ghosts = np.zeros(len(self._ages), bool)
        ghosts[self._result.quality.ghosts] = True
        outline(picture, self._slots, ghosts, _GHOST)
        return self._on_tile(picture)

    @cached_property
    def lags(self) -> Floats:
        """1 − cosine of blended and current features, float32 (T,). The blended ones are after mending."""
        return np.asarray(1 - token_cosines(self._result.accumulated, self._result.tokens.features), np.float32)

    @cached_property
    def flow(self) -> Picture:
        """Where the content moves: against the flow, which says where it came from. Shaded by the frame."""
        motion, full_px = self._motion
        colours = cv2.resize(flow_colours(motion, full_px), (self._small.shape[1], self._small.shape[0]))
        small = (colours * (0.5 + 0.5 / 255 * grey(self._small))).astype(np.uint8)
        key, inside = wheel(44)
        corner = small[-48:-4, -48:-4]
        corner[inside] = key[inside]
        return self._on_tile(small)

    @property
    def has_flow(self) -> bool:
        return self._result.flow is not None

    @property
    def flow_caption(self) -> str:
        if self._result.flow is None:
            return "no flow; motion last seen" if self._result.motion.any() else "no flow"
        return f"flow, full colour {self._motion[1]:.1f} px a frame"

    def facts(self, ghosts_so_far: int) -> Picture:
        """What there is to say, as words."""
        result, moment = self._result, self.moment
        out = blank(self._tile)
        lines = [
            f"encoded {result.tokens_encoded} of {int(result.seen.sum())}{_causes(result)}",
            f"changed {moment.changed:.1%}   moving {result.moving[result.seen].mean():.1%}",
            f"coherence {_coherence(moment.coherence)}",
            "fidelity " + ("unknown" if moment.fidelity is None else f"{moment.fidelity:.4f}, estimated"),
            f"camera {result.camera_px[0]:+.1f}, {result.camera_px[1]:+.1f} px",
            f"ghosts {moment.ghosts}, {ghosts_so_far} so far",
            f"flicker {_flicker(result)}",
            f"{moment.ms:.1f} ms" + _dearest(result),
        ]
        cv2.rectangle(out, (6, 8), (20, 22), MODE_COLOURS[moment.mode], cv2.FILLED)
        write(out, result.mode.value, (28, 20), INK, 0.55)
        for index, line in enumerate(lines):
            write(out, line, (6, 44 + index * LINE_PX), INK if index < 2 else DIM)
        return out

    @cached_property
    def _fitted(self) -> tuple[Picture, Size]:
        return fit(self._frame.image, self._tile)

    @cached_property
    def _small(self) -> Picture:
        """The frame without the paper around it."""
        (width, height), (inner_x, inner_y) = self._tile, self._fitted[1]
        x, y = (width - inner_x) // 2, (height - inner_y) // 2
        return np.ascontiguousarray(self._fitted[0][y : y + inner_y, x : x + inner_x])

    @cached_property
    def _slots(self) -> Slots:
        result, inner = self._result, self._fitted[1]
        if result.placement is None:
            return np.full((inner[1], inner[0]), -1, np.int64)
        return slot_map(result.placement, result.tokens.grid, self._patch, inner)

    @cached_property
    def _motion(self) -> tuple[Floats, float]:
        """Source pixels a frame, (h, w, 2), and how many of them are full colour."""
        result = self._result
        if result.flow is not None:
            motion = -result.flow.backward * np.array(result.flow.scale, np.float32)
        else:
            outside = np.concatenate([-result.motion, np.zeros((1, 2), np.float32)])
            motion = outside[self._slots]
        length = np.hypot(motion[..., 0], motion[..., 1])
        return motion, max(_LEAST_FULL_PX, float(np.percentile(length, 99.5)))

    def _on_tile(self, picture: Picture) -> Picture:
        """Centred on the tile, with the model's crop marked where it is not the whole frame."""
        placement = self._result.placement
        if placement is not None and placement.crop != (0, 0, *placement.frame_size):
            _mark(picture, placement)
        out = blank(self._tile)
        x, y = (out.shape[1] - picture.shape[1]) // 2, (out.shape[0] - picture.shape[0]) // 2
        out[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
        return out


def annotated(view: View, moments: Sequence[Moment], ghosts_so_far: int) -> Picture:
    """All views of a frame beside each other above the strip of modes: a frame of the video, width and height even."""
    encoded = captioned(view.encoded, "")
    x = write(encoded, f"{view.title}, encoded:", (4, LINE_PX - 3))
    for name, colour in _CAUSES:
        x = write(encoded, name, (x + 8, LINE_PX - 3), colour)
    rows = [
        [
            encoded,
            captioned(view.residual, f"residual, white {RESIDUAL_WHITE:g} grey levels"),
            captioned(view.flow, view.flow_caption),
        ],
        [
            captioned(view.age, f"age, white {OLDEST} frames"),
            captioned(view.lag, f"blended against current, white {LAG_WHITE:g}"),
            captioned(view.facts(ghosts_so_far), ""),
        ],
    ]
    whole = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    return np.concatenate([whole, strip(moments, (whole.shape[1], _STRIP_PX))])


def _age_levels(ages: Slots) -> Floats:
    return np.asarray(np.log1p(ages) / np.log1p(OLDEST), np.float32)


def _mark(picture: Picture, placement: Placement) -> None:
    scale = picture.shape[1] / placement.frame_size[0], picture.shape[0] / placement.frame_size[1]
    x0, y0, x1, y1 = (round(edge * scale[i % 2]) for i, edge in enumerate(placement.crop))
    cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), INK, 1)


def _causes(result: FrameResult) -> str:
    return ": " + ", ".join(f"{name} {count}" for name, count in result.reasons.items()) if result.reasons else ""


def _coherence(value: float | None) -> str:
    return "unknown: nothing to compare with" if value is None else f"{value:.3f}, {Coherence.of(value).value}"


def _flicker(result: FrameResult) -> str:
    found = result.quality.flicker
    if found is None:
        return "not yet known"
    return "none" if found.median_hz is None else f"{found.share:.1%} of tokens, about {found.median_hz:.1f} Hz"


def _dearest(result: FrameResult) -> str:
    dearest = sorted(result.stages_ms.items(), key=lambda stage: -stage[1])[:3]
    return ": " + ", ".join(f"{stage} {ms:.1f}" for stage, ms in dearest)
