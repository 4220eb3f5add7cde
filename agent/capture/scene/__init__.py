"""The rendered camera: a small world with known truth, for demos, tests and the training of the reference model."""

from __future__ import annotations

from agent.capture.scene.still import random_still
from agent.capture.scene.world import Scene

__all__ = ["Scene", "random_still"]
