"""The rival with gates in every block; see `agent.bench.eventful_graph`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from agent.capture.frame import Frame
from config.errors import ConfigError
from engines.onnx.runtime import OnnxRuntime, run
from engines.preprocess import Preprocessor
from vpi_ops.choice import host_shrink

Floats = NDArray[np.float32]

NAME = "eventful"


class Eventful:
    """One clip through a gated tower. limit: the norm above which a gate opens, or how many tokens it lets through.
    tower: a session of `GatedTower`, whose weights all settings share; states: what it carries, by name."""

    name = NAME

    def __init__(
        self,
        preprocessor: Preprocessor,
        tower: ort.InferenceSession,
        states: Mapping[str, tuple[int, ...]],
        setting: Mapping[str, float],
    ) -> None:
        self.setting = setting
        self._preprocessor, self._tower = preprocessor, tower
        self._ranked = "share" in setting
        self._features = _room(tower.get_outputs(), "features")
        self._patches = _room(tower.get_inputs(), "patches")
        self._memory = {name: np.zeros(shape, np.float32) for name, shape in states.items()}
        self._binding = tower.io_binding()
        for name, array in self._memory.items():
            self._binding.bind_input(f"{name}_in", "cpu", 0, np.float32, array.shape, array.ctypes.data)
            self._binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        self._binding.bind_output("features", "cpu", 0, np.float32, self._features.shape, self._features.ctypes.data)
        self._first = True

    def process(self, frame: Frame) -> Floats:
        """Features (T, D), the same memory each time. The first frame opens every gate."""
        return self.encode(self._preprocessor.picture(frame.image))

    def encode(self, picture: NDArray[np.uint8]) -> Floats:
        """The same for a picture, uint8 (S, S, 3)."""
        self._binding.bind_cpu_input("patches", self._preprocessor.patches(picture, out=self._patches))
        self._binding.bind_cpu_input("limit", self._limit())
        run(self._tower, self._binding)
        self._first = False
        return self._features

    def _limit(self) -> NDArray[np.generic]:
        if self._ranked:
            tokens = len(self._features)
            return np.array([tokens if self._first else max(1, round(self.setting["share"] * tokens))])
        return np.array(-1 if self._first else self.setting["threshold"], np.float32)


def _room(values: Sequence[ort.NodeArg], name: str) -> Floats:
    """Memory for the input or output of that name."""
    return next(np.zeros(value.shape, np.float32) for value in values if value.name == name)


def rivals(runtime: OnnxRuntime, thresholds: Sequence[float], shares: Sequence[float]) -> list[Eventful]:
    """One for each threshold and for each share of the tokens. Raises ConfigError without the package onnx."""
    try:
        from agent.bench.eventful_graph import GatedTower
    except ImportError:
        raise ConfigError(f"--against {NAME} builds a graph: pip install 'stillwatch[dev]'") from None
    from engines.checkpoint import Checkpoint

    folder = runtime.model.folder
    checkpoint, preprocessor = Checkpoint.open(folder), Preprocessor(runtime.model.manifest, host_shrink())
    found: list[Eventful] = []
    for ranked, settings in (
        (False, [{"threshold": threshold} for threshold in thresholds]),
        (True, [{"share": share} for share in shares]),
    ):
        if settings:
            tower = GatedTower(checkpoint, ranked=ranked)
            options = ort.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = runtime.threads, 1
            options.enable_mem_pattern = False
            options.log_severity_level = 3
            options.add_session_config_entry("session.intra_op.allow_spinning", "1" if runtime.spin else "0")
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
            session = ort.InferenceSession(tower.graph.content(), options, providers=["CPUExecutionProvider"])
            found += [Eventful(preprocessor, session, tower.states, setting) for setting in settings]
    return found
