"""Words about a picture or a clip, without a running agent: `stillwatch describe` and `stillwatch ask`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from agent.capture import open_source
from agent.capture.frame import Frame
from agent.capture.scene.language import DESCRIBE
from agent.capture.source import FrameSource
from agent.coherence.pipeline import TemporalVLM
from agent.insight.change import SemanticChange
from config.errors import EndOfStream
from engines.decoder import Decoder
from engines.manifest import Model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.preprocess import Preprocessor
from vpi_ops.choice import host_ops, host_shrink


@dataclass(frozen=True, slots=True)
class Remark:
    """What was said about the clip at this position; None for the only picture there is. pieces: as they are made."""

    media_s: float | None
    pieces: Iterator[str]


def knows(model: Model, uri: str) -> bool:
    """Whether the words of this model mean anything on this source."""
    return "rendered" not in model.manifest.domain or uri.startswith("scene:")


def answer(model: Model, uri: str, question: str) -> Iterator[str]:
    """The answer, in pieces, to a question about the first frame of a source: now, for a camera.

    Raises what `open_source` raises, and EngineFault."""
    with closing(open_source(uri, source_id="ask")) as source:
        frame = source.read()
    picture = Preprocessor(model.manifest).picture(frame.image)
    features = OnnxEncoder(OnnxRuntime(model, spin=False)).encode_full(picture)
    yield from Decoder(model, spin=False).generate(features, question)


def remarks(model: Model, uri: str, seconds: float | None = None) -> Iterator[Remark]:
    """What there is to say about a source: the first picture, then each time the scene means something else.

    seconds: look at so much of it; None = to its end. Each remark's pieces are to be taken before the next remark.
    Raises what `open_source` raises, and EngineFault.
    """
    decoder = Decoder(model, spin=False)
    manifest = model.manifest
    vlm = TemporalVLM(Preprocessor(manifest, host_shrink()), OnnxEncoder(OnnxRuntime(model, spin=False)), host_ops())
    change = SemanticChange(manifest.grid)
    with closing(open_source(uri, source_id="describe", paced=False)) as source, closing(vlm):
        single = source.info.frames == 1
        first = True
        for frame in _frames(source, seconds):
            result = vlm.process(frame)
            news = change.update(result.accumulated, frame.monotonic_ns / 1e9, cut=result.cut, ignored=~result.seen)
            if first or news is not None:
                first = False
                change.described(result.accumulated)
                yield Remark(
                    None if single else frame.media_s, decoder.generate(result.accumulated, DESCRIBE, again=True)
                )


def _frames(source: FrameSource, seconds: float | None) -> Iterator[Frame]:
    start_ns: int | None = None
    while True:
        try:
            frame = source.read()
        except EndOfStream:
            return
        start_ns = frame.monotonic_ns if start_ns is None else start_ns
        if seconds is not None and (frame.monotonic_ns - start_ns) / 1e9 > seconds:
            return
        yield frame
