"""Debug pictures of a clip: what the coherent path saw, decided and kept, as PNG and as an annotated video."""

from __future__ import annotations

from agent.inspecting.run import inspect_clip

__all__ = ["inspect_clip"]
