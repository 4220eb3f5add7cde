"""ONNX Runtime sessions of one model. They hold the weights, so all cameras share them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock

import numpy as np
import onnxruntime as ort

from config.errors import EngineFault, ModelError
from engines.manifest import GRAPH_FORMAT, Model
from engines.native import NativeTower, open_tower

_TRIES = 8
_LOADED = 1.25
"""How many times as long threads that wait actively may take: on free cores they gain a tenth of a full encode and a
third of a small one, on loaded ones they lose by far more than this."""


class OnnxRuntime:
    """Opens each graph once, when it is first asked for.

    threads: of one call. spin: during a call, idle threads wait actively for work; on free cores everything is about
    1.6 times faster so, on loaded ones 2 to 15 times slower: turn it off where the machine has other work. Between
    calls they sleep in any case: else those of one graph would hold a core for milliseconds while another runs.
    native: changed tokens go through `engines.native` where that can be had.
    """

    def __init__(self, model: Model, *, threads: int = 2, spin: bool = True, native: bool = True) -> None:
        self.model = model
        self.threads = threads
        self.spin = spin
        self._sessions: dict[Path, ort.InferenceSession] = {}
        self._tower: NativeTower | str | None = None if native else "it was not asked for"
        self._lock, self._tower_lock = Lock(), Lock()

    @property
    def tower(self) -> NativeTower | str:
        """What encodes the changed tokens in place of the graph `select_inplace`, or a sentence why nothing does."""
        with self._tower_lock:
            if self._tower is None:
                full = self.session("encode_full_fused")
                self._tower = open_tower(
                    self.model, self.threads, lambda patches: full.run(["features"], {"patches": patches})[0]
                )
            return self._tower

    def session(self, graph: str) -> ort.InferenceSession:
        """The session of a graph of the manifest; safe to run from several threads. Raises ModelError."""
        file = self.model.graph(graph)
        with self._lock:
            if file not in self._sessions:
                self._sessions[file] = self._open(file)
            return self._sessions[file]

    def _open(self, file: Path) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        # A memory pattern is kept for every input shape that is ever seen; the number of rows differs in each frame.
        options.enable_mem_pattern = False
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if self.spin else "0")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelError(
                f"{file}: ONNX Runtime {ort.__version__} can't load it ({error}); expected a graph that fits the "
                f"weights beside it; write it anew with `python -m engines.export {file.parent}`"
            ) from error
        found = session.get_modelmeta().version
        if found != GRAPH_FORMAT:
            raise ModelError(
                f"{file}: found a graph of format {found}, expected {GRAPH_FORMAT}; write it anew with "
                f"`python -m engines.export {file.parent}`"
            )
        return session


def fastest(model: Model, threads: int, clock: Callable[[], float] = time.perf_counter) -> OnnxRuntime:
    """With threads that wait actively, unless full encodes show that the cores have other work. Raises ModelError."""
    patches = np.zeros((model.manifest.tokens, 3 * model.manifest.patch_size**2), np.float32)
    both = [OnnxRuntime(model, threads=threads, spin=spin) for spin in (True, False)]
    spent: list[list[float]] = [[], []]
    for _ in range(_TRIES):
        for runtime, times in zip(both, spent, strict=True):
            start = clock()
            runtime.session("encode_full_fused").run(["features"], {"patches": patches})
            times.append(clock() - start)
    active, asleep = (float(np.median(times[1:])) for times in spent)
    return both[active > _LOADED * asleep]


def run(session: ort.InferenceSession, binding: ort.IOBinding) -> None:
    """One call. Raises EngineFault in place of what the runtime throws, which has no common base."""
    try:
        session.run_with_iobinding(binding)
    except Exception as error:
        raise EngineFault(f"ONNX Runtime failed: {error}") from error
