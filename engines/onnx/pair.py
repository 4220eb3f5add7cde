"""Two cameras' dirty tokens in one pass.

With few tokens a selective encode mostly reads weights; two cameras that go together read them once. Each still attends
to its own cache alone, so the results are those of one by one.

For who encodes several cameras on one thread. The agent doesn't: its cameras have threads of their own, and encoding
side by side keeps the cores as busy; a pass for two would make one wait for the other, and hold the weights once more.
`stillwatch bench --engine` prints what it gains against both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engines.onnx.encoder import OnnxEncoder, bind_features, places
from engines.onnx.runtime import OnnxRuntime, run
from engines.plan import EncodePlan, TokenMap

Picture = NDArray[np.uint8]


class OnnxPair:
    """Two encoders of one runtime that may go together. Not thread-safe; each encoder can be used alone in between."""

    def __init__(self, runtime: OnnxRuntime, first: OnnxEncoder, second: OnnxEncoder) -> None:
        manifest = runtime.model.manifest
        self._both = (first, second)
        self._session = runtime.session("select_pair")
        self._binding = self._session.io_binding()
        self._patches = np.empty((2 * manifest.tokens, 3 * manifest.patch_size**2), np.float32)
        self._new = np.empty((2 * manifest.tokens, manifest.dim), np.float32)
        for encoder, camera in zip(self._both, "ab", strict=True):
            for part, place in places(encoder.cache):
                self._binding.bind_input(f"{part}_{camera}_in", *place)
                self._binding.bind_output(f"{part}_{camera}", *place)

    def encode(self, pictures: tuple[Picture, Picture], plans: tuple[EncodePlan, EncodePlan]) -> list[TokenMap]:
        """The same as one `encode` after the other; in one pass where both plans select tokens. Raises EngineFault, and
        then both caches are invalid; ValueError, and then nothing has changed."""
        work = list(zip(self._both, pictures, plans, strict=True))
        for encoder, _, plan in work:
            if encoder.selects(plan):
                encoder.slots.check(plan)
        if not all(encoder.selects(plan) and plan.encoded for encoder, _, plan in work):
            return [encoder.encode(picture, plan) for encoder, picture, plan in work]
        for encoder, _, plan in work:
            encoder.begin(plan)
        (one, picture_a, plan_a), (other, picture_b, plan_b) = work
        a = one.gather(picture_a, plan_a, self._patches)
        b = other.gather(picture_b, plan_b, self._patches[a.tokens :])
        binding, new = self._binding, self._new[: a.tokens + b.tokens]
        binding.bind_cpu_input("patches", self._patches[: len(new)])
        binding.bind_cpu_input("position", np.concatenate([a.position, b.position]))
        binding.bind_cpu_input("counts", np.array([a.tokens, b.tokens]))
        for camera, rows, source in (("a", a.rows, a.source), ("b", b.rows, b.source + a.tokens)):
            binding.bind_cpu_input(f"index_{camera}", rows)
            binding.bind_cpu_input(f"source_{camera}", source)
        bind_features(binding, new)
        run(self._session, binding)
        one.take(a, new[: a.tokens])
        other.take(b, new[a.tokens :])
        return [one.done(a.tokens), other.done(b.tokens)]
