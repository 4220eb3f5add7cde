"""How large a picture may be. What a camera or a file claims decides how much memory a decoder takes, and that happens
before anybody has seen a pixel; so it is compared with a limit first.

Sizes of images are read from their headers: PNG (w3.org/TR/png, IHDR), JPEG (ITU T.81 annex B, SOF), BMP
(BITMAPINFOHEADER), WebP (RFC 9649).
"""

from __future__ import annotations

import struct

MOST_PIXELS = 36_000_000
"""Of one picture: 8K (7680×4320) is the largest that cameras give. It is 108 MB as RGB, and a decoder may hold 17."""
UNKNOWN_SIZE = f"a picture is too large, expected at most {MOST_PIXELS // 10**6} megapixels, or has no size"
_NO_SIZE = frozenset({0xC4, 0xC8, 0xCC})
"""Markers of JPEG between those that begin a frame, which are something else."""


def too_large(size: tuple[int, int]) -> str | None:
    """Why a picture of (width, height) is not decoded, None when it is."""
    width, height = size
    if width * height <= MOST_PIXELS:
        return None
    return f"a picture of {width}×{height} is too large: expected at most {MOST_PIXELS // 10**6} megapixels"


def image_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) by the header of a PNG, JPEG, BMP or WebP; None for anything else."""
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return struct.unpack(">II", data[16:24])
        if data.startswith(b"\xff\xd8"):
            return _jpeg(data)
        if data.startswith(b"BM"):
            width, height = struct.unpack("<ii", data[18:26])
            return abs(width), abs(height)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data)
    except struct.error:  # cut short
        pass
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """The largest of its frames, for there may be several, and a thumbnail has its own inside of a segment."""
    at, found = 2, None
    while (at := data.find(b"\xff", at)) >= 0 and at + 1 < len(data):
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD9:
            at += 2
        else:
            (length,) = struct.unpack(">H", data[at + 2 : at + 4])
            if 0xC0 <= marker <= 0xCF and marker not in _NO_SIZE:
                height, width = struct.unpack(">HH", data[at + 5 : at + 9])
                if found is None or width * height > found[0] * found[1]:
                    found = width, height
            at += 2 + max(2, length)
    return found


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        (bits,) = struct.unpack("<I", data[21:25])
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return width & 0x3FFF, height & 0x3FFF
    return None
