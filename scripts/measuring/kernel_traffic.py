"""What each CUDA kernel has to move at least, and how long that takes at the documented bandwidth of a board.

Every byte counts once, however often it is read: what L1 and L2 hold is free. So this is a floor and no forecast.
"""

from __future__ import annotations

from collections.abc import Iterator

BOARDS = {"Orin Nano 8 GB": 68.0, "AGX Orin 64 GB": 204.8, "Thor T5000": 273.0}
"""GB/s."""
FRAME = (1920, 1080)
SIDE, PATCH, DIM, LAYERS = 512, 16, 768, 12
TOKENS = (SIDE // PATCH) ** 2
DIRTY = TOKENS // 10
ANALYSIS = (320, 180)


def traffic() -> dict[str, tuple[int, str]]:
    """Bytes, and of what, by kernel."""
    frame, picture = 3 * FRAME[0] * FRAME[1], 3 * SIDE * SIDE
    half, quarter = TOKENS * (PATCH // 2) ** 2 * 3, TOKENS * (PATCH // 4) ** 2 * 3
    flow, grey = 8 * ANALYSIS[0] * ANALYSIS[1], ANALYSIS[0] * ANALYSIS[1]
    pixels = 3 * PATCH * PATCH
    row, kept = 4 * DIM, 2 * DIM  # of a token map, float32; of keys or of values, half precision
    return {
        "picture": (frame + picture, "1080p frame → 512×512"),
        "patches": (frame * DIRTY // TOKENS + DIRTY * pixels * 2, f"{DIRTY} of {TOKENS} patches, half"),
        "grey": (frame // 3 + grey, "1080p frame → 320×180; reads two rows of six"),
        "pyramid_down": (grey + grey // 4, "320×180 → 160×90"),
        "fill": (picture + half + quarter + 4 * TOKENS, "512×512, 1024 patches"),
        "exposure": (8 * TOKENS, "1024 means, twice"),
        "residual": (2 * (half + quarter) + 4 * TOKENS, "1024 patches, both levels"),
        "moved": (2 * quarter + 4 * TOKENS, "1024 patches, quarter level"),
        "histogram": (quarter + 4 * 512, "quarter level"),
        "consistency": (2 * flow + flow // 2, "320×180"),
        "compose": (3 * flow, "320×180"),
        "warp_bilinear": (5 * DIRTY * row + 9 * DIRTY, f"{DIRTY} tokens of {DIM}, float32"),
        "warp_nearest": (2 * DIRTY * row + 9 * DIRTY, f"{DIRTY} tokens of {DIM}, float32"),
        "blend": (3 * TOKENS * row + 4 * TOKENS, f"{TOKENS} tokens of {DIM}, float32"),
        "scatter_rows": (2 * DIRTY * kept * 2 * LAYERS + 8 * DIRTY, f"{DIRTY} tokens, {LAYERS} layers, half"),
    }


def traffic_table() -> Iterator[str]:
    """Markdown, a row a kernel."""
    yield f"| kernel | of | kB | {' | '.join(f'{board}, µs' for board in BOARDS)} |"
    yield "|---" * (len(BOARDS) + 3) + "|"
    for name, (size, what) in traffic().items():
        times = " | ".join(f"{size / rate / 1e3:.1f}" for rate in BOARDS.values())
        yield f"| `{name}` | {what} | {size / 1e3:,.0f} | {times} |"
