"""Engines and execution contexts with every answer checked: TensorRT returns False or None where others raise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from config.errors import EngineFault
from engines.tensorrt.building import Log
from engines.tensorrt.device import Gpu, Replay, Stream
from engines.tensorrt.releases import Release


class Engine:
    """A deserialised engine; contexts for any number of threads are made from one. Raises EngineFault for a plan that
    TensorRT doesn't take."""

    def __init__(self, trt: Any, plan: bytes, release: Release, log: Log) -> None:
        self.trt, self.release, self._log = trt, release, log
        self._runtime = trt.Runtime(log.logger)
        self.raw = self._runtime.deserialize_cuda_engine(plan)
        if self.raw is None:
            raise EngineFault(f"TensorRT {trt.__version__} doesn't take the engine: {log.reason('no reason given')}")
        names = [self.raw.get_tensor_name(i) for i in range(self.raw.num_io_tensors)]
        modes = {name: self.raw.get_tensor_mode(name) for name in names}
        self.inputs = [name for name in names if modes[name] == trt.TensorIOMode.INPUT]
        self.outputs = [name for name in names if modes[name] == trt.TensorIOMode.OUTPUT]

    def dtype(self, name: str) -> np.dtype[Any]:
        """NumPy type of a tensor that the host fills or reads. Raises EngineFault for one that NumPy lacks."""
        kind = self.raw.get_tensor_dtype(name)
        try:
            found: np.dtype[Any] = np.dtype(self.trt.nptype(kind))
            return found
        except TypeError as error:
            raise EngineFault(f"tensor {name} is of {kind}, which the host can't fill or read") from error

    def scratch_bytes(self, profile: int) -> int:
        """Memory that a context of this profile works in; 0 where contexts bring their own."""
        if not self.release.own_scratch:
            return 0
        if self.raw.num_optimization_profiles > 1:
            return int(self.raw.get_device_memory_size_for_profile_v2(profile))
        return int(self.raw.device_memory_size_v2)

    def own_bytes(self) -> int:
        """Memory that a context allocates by itself, the most over all profiles."""
        return 0 if self.release.own_scratch else int(self.raw.device_memory_size)

    def context(self, profile: int, stream: Stream, *, scratch: int, scratch_bytes: int) -> Execution:
        """A context of one profile and its shapes, for one thread at a time."""
        if self.release.own_scratch:
            raw = self.raw.create_execution_context(self.trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        else:
            raw = self.raw.create_execution_context()
        if raw is None:
            raise EngineFault(f"TensorRT made no execution context: {self._log.reason('probably out of memory')}")
        shapes = {name: tuple(self.raw.get_tensor_shape(name)) for name in self.inputs}
        varying = [name for name, shape in shapes.items() if -1 in shape]
        if varying:  # profile 0 too: only the first context of an engine gets it by itself
            try:
                raw.set_optimization_profile_async(profile, stream.handle)
            except RuntimeError as error:
                raise EngineFault(f"TensorRT refused profile {profile}: {error}") from error
            stream.synchronize()
        if self.release.own_scratch:
            raw.set_device_memory(scratch, scratch_bytes)
        for name in varying:
            lowest, *_ = self.raw.get_tensor_profile_shape(name, profile)
            self.sure(raw.set_input_shape(name, tuple(lowest)), f"shape {tuple(lowest)} of {name}")
        if missing := raw.infer_shapes():
            raise EngineFault(f"TensorRT still lacks shapes of {', '.join(missing)}")
        return Execution(self, raw, stream)

    def sure(self, done: bool, what: str) -> None:
        """Raises EngineFault with what TensorRT said unless it was done."""
        if not done:
            raise EngineFault(f"TensorRT refused the {what}: {self._log.reason('no reason given')}")


class Execution:
    """One context with its stream; `run` it from one thread at a time."""

    def __init__(self, engine: Engine, raw: Any, stream: Stream) -> None:
        self._engine, self._raw, self._stream = engine, raw, stream
        self._recorded: Replay | None = None

    def bind(self, addresses: Mapping[str, int]) -> None:
        """Where every input and output lies. Raises EngineFault when one is left out or refused."""
        expected = {*self._engine.inputs, *self._engine.outputs}
        if missing := expected ^ addresses.keys():
            raise EngineFault(f"addresses of {', '.join(sorted(missing))}: expected those of {len(expected)} tensors")
        for name, address in addresses.items():
            self._engine.sure(self._raw.set_tensor_address(name, address), f"address of {name}")

    def record(self, gpu: Gpu) -> None:
        """Have the work as one CUDA graph from now on. It runs once before, because TensorRT prepares itself in its
        first run, and writes to the outputs. Raises EngineFault; `run` works as before then."""
        self._queue()
        self._stream.synchronize()
        self._recorded = gpu.record(self._stream, self._queue)

    def run(self) -> None:
        """Queue the work. Raises EngineFault."""
        if self._recorded is None:
            self._queue()
        else:
            self._recorded.launch()

    def close(self) -> None:
        if self._recorded is not None:
            self._recorded.destroy()
        self._recorded = self._raw = None

    def _queue(self) -> None:
        self._engine.sure(self._raw.execute_async_v3(self._stream.handle), "execution")
