"""Where frames come from: `open_source` turns a URI into an open `FrameSource`."""

from __future__ import annotations

from agent.capture.opening import open_source

__all__ = ["open_source"]
