"""The codec's own motion vectors, where they say how a picture moved since the one shown before it."""

from __future__ import annotations

from av.video.frame import PictureType, VideoFrame

from vpi_ops.codec import CodecMotion

_PREDICTED = frozenset({PictureType.P, PictureType.B})


class VectorReader:
    """Reads the vectors of one stream's pictures, in the order in which they are shown.

    Vectors name no picture. Those to an earlier reference mean the picture shown before, unless that is a B-picture:
    which earlier one they mean then depends on how the encoder nests its references, so they are left alone.
    """

    def __init__(self) -> None:
        self._sound = self._refers = False

    def read(self, video: VideoFrame, *, damaged: bool) -> CodecMotion | None:
        """The motion since the picture before; None when there is none to be had: key frames, other codecs, rotated
        pictures. damaged: since then packets or pictures were left out. Where the gap is shows at the next key frame
        only, for they are decoded in another order than shown."""
        self._sound = bool(video.key_frame) or (self._sound and not damaged)
        refers, self._refers = self._refers, video.pict_type != PictureType.B
        if not (self._sound and refers) or video.pict_type not in _PREDICTED:
            return None
        if video.interlaced_frame or video.rotation:
            return None
        try:
            vectors = video.side_data["MOTION_VECTORS"]
        except KeyError:
            return None
        # Bytes, not the array that PyAV makes of it: that would keep the whole picture, and copies eight times slower.
        return CodecMotion.of((video.width, video.height), bytes(vectors))
