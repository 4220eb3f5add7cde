"""An encoder that another one stands behind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from config.errors import EngineFault
from engines.plan import EncodePlan, Encoder, TokenMap

PATIENCE = 3
"""Failures in a row, after which the first encoder is given up: one can be chance, and the frame is encoded in full
after it; a GPU that has lost its context fails for ever."""


class FallbackEncoder:
    """Implements `Encoder`. Failures of the first are raised as they come; at the third in a row the call, and every
    later one, goes to the second, which is made then. tell: is told why, once.

    degraded: the same sentence, None as long as all is well.
    """

    def __init__(self, first: Encoder, second: Callable[[], Encoder], tell: Callable[[str], object]) -> None:
        self._now, self._second, self._tell = first, second, tell
        self._failed = 0
        self.degraded: str | None = None

    @property
    def crossover(self) -> int:
        return self._now.crossover

    @crossover.setter
    def crossover(self, tokens: int) -> None:
        self._now.crossover = tokens

    @property
    def grid(self) -> tuple[int, int]:
        return self._now.grid

    @property
    def dim(self) -> int:
        return self._now.dim

    @property
    def patch_size(self) -> int:
        return self._now.patch_size

    def encode(self, picture: NDArray[np.uint8], plan: EncodePlan) -> TokenMap:
        try:
            tokens = self._now.encode(picture, plan)
        except EngineFault as fault:
            self._count(fault)
            return self._now.encode(picture, plan)
        self._failed = 0
        return tokens

    def encode_full(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            return self._now.encode_full(picture)
        except EngineFault as fault:
            self._count(fault)
            return self._now.encode_full(picture)

    def reset(self) -> None:
        self._now.reset()

    def _count(self, fault: EngineFault) -> None:
        """Raise it, until it is time for the second encoder."""
        self._failed += 1
        if self.degraded is not None or self._failed < PATIENCE:
            raise fault
        self._now = self._second()
        self.degraded = f"the encoder failed {PATIENCE} times in a row ({fault}); ONNX Runtime on the CPU does its work"
        self._tell(self.degraded)
