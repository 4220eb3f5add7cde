"""Which board this is, from files that NVIDIA's Jetson Linux puts there. Standard library only, and readable by the
Python 3.8 of JetPack 5: the installer asks before there is any environment."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_RELEASE = re.compile(r"# R(\d+) \(release\), REVISION: ([\d.]+)")


class JetPack(NamedTuple):
    """What comes with a release of it. l4t: major numbers of its Linux. vpi: number in names of VPI's packages."""

    l4t: tuple[int, ...]
    name: str
    python: tuple[int, int]
    cuda: str
    vpi: int


JETPACKS = (
    JetPack((35,), "5", (3, 8), "11.4", 2),
    JetPack((36,), "6", (3, 10), "12", 3),
    JetPack((38, 39), "7", (3, 12), "13", 4),
)
"""Source: NVIDIA's JetPack archive and VPI release notes."""


class Board(NamedTuple):
    """model: of the device tree, None off a device-tree machine. l4t: such as `36.4.3`, None on what is no Jetson.
    jetpack: its row in `JETPACKS`, None for a release that is not known."""

    model: str | None
    l4t: str | None
    jetpack: JetPack | None

    @property
    def is_jetson(self) -> bool:
        return self.l4t is not None

    def __str__(self) -> str:
        if self.l4t is None:
            return self.model or "no Jetson"
        release = f"JetPack {self.jetpack.name}" if self.jetpack else "an unknown JetPack"
        return f"{self.model or 'a Jetson'}, L4T {self.l4t}, {release}"


def read_board(root: Path = Path("/")) -> Board:
    """The board whose files lie below `root`."""
    model = _text(root / "proc/device-tree/model")
    found = _RELEASE.search(_text(root / "etc/nv_tegra_release") or "")
    if found is None:
        return Board(model, None, None)
    major = int(found.group(1))
    jetpack = next((row for row in JETPACKS if major in row.l4t), None)
    return Board(model, "{}.{}".format(*found.groups()), jetpack)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n") or None
    except OSError:
        return None
