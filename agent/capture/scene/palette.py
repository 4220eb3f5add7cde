"""Colours of figures, and the light that falls on them. All colours are RGB, 0–255."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RGB = tuple[float, float, float]

NOMINAL: dict[str, RGB] = {
    "red": (205, 32, 36),
    "yellow": (238, 200, 28),
    "green": (30, 150, 52),
    "blue": (32, 82, 208),
    "purple": (138, 44, 172),
    "white": (240, 240, 236),
    "black": (26, 26, 30),
}
COATS = ("red", "yellow", "white", "black")  # the colours that animals are seen in
SKIN: tuple[RGB, ...] = ((238, 200, 172), (222, 174, 138), (190, 136, 98), (140, 94, 64), (96, 64, 46))
HAIR: tuple[RGB, ...] = ((40, 30, 24), (82, 54, 32), (128, 92, 54), (170, 140, 96), (150, 148, 146))
TROUSERS: tuple[RGB, ...] = ((62, 66, 84), (98, 98, 104), (142, 124, 98), (84, 68, 56), (52, 52, 56), (120, 126, 134))


@dataclass(frozen=True, slots=True)
class Light:
    """What the light does to colours: `ground` multiplies the backdrop, `figure` the figures (brighter, so that their
    colour can be read at night), `shadow` is the darkening under a figure, 0–1."""

    ground: RGB
    figure: RGB
    shadow: float


LIGHTING: dict[str, Light] = {
    "day": Light((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), 0.38),
    "dusk": Light((0.70, 0.61, 0.57), (0.92, 0.85, 0.81), 0.25),
    "night": Light((0.27, 0.30, 0.38), (0.56, 0.60, 0.72), 0.2),
}


def tinted(colour: RGB, by: RGB) -> RGB:
    """`colour` multiplied channel by channel, clipped to 0–255."""
    return (
        min(255.0, max(0.0, colour[0] * by[0])),
        min(255.0, max(0.0, colour[1] * by[1])),
        min(255.0, max(0.0, colour[2] * by[2])),
    )


def shade(colour: RGB, gain: float) -> RGB:
    """`colour` darker (gain < 1) or lighter, clipped."""
    return tinted(colour, (gain, gain, gain))


def toward(colour: RGB, other: RGB, share: float) -> RGB:
    """`colour` mixed with `share` of `other`."""
    keep = 1.0 - share
    return (
        colour[0] * keep + other[0] * share,
        colour[1] * keep + other[1] * share,
        colour[2] * keep + other[2] * share,
    )


def individual(name: str, rng: np.random.Generator) -> RGB:
    """One individual's version of a nominal colour: slightly lighter or darker, slightly off in hue."""
    off = rng.uniform(-9, 9, 3) * (0.35 if name in ("white", "black") else 1.0)
    gain = float(rng.uniform(0.9, 1.05))
    base = NOMINAL[name]
    return shade((base[0] + float(off[0]), base[1] + float(off[1]), base[2] + float(off[2])), gain)
