"""Where frames come from: `open_source` turns a URI into an open `FrameSource`.

It is imported when it is asked for: the process that holds a jetson-utils source needs neither libav nor OpenCV, and a
camera is back the sooner the less it has to load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.capture.opening import open_source

__all__ = ["open_source"]


def __getattr__(name: str) -> Any:
    if name == "open_source":
        from agent.capture.opening import open_source

        return open_source
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
