"""The rendered camera: a small world with known truth, for demos, tests and the training of the reference model."""

from __future__ import annotations

from agent.capture.scene.still import random_still

__all__ = ["random_still"]
