"""Runtime, engines and contexts. Work is queued on the simulated stream and runs when somebody synchronises."""

from __future__ import annotations

import json
import threading
import zlib
from typing import Any

import numpy as np
import onnxruntime as ort
from simulated_cuda import ContractBroken, machine

from tensorrt.builder import MAGIC
from tensorrt.faults import faults
from tensorrt.kinds import (
    DataType,
    Dims,
    ExecutionContextAllocationStrategy,
    IHostMemory,
    ILogger,
    TensorIOMode,
    TensorLocation,
    initialised,
    nptype,
)
from tensorrt.release import OLD, STRONG, VERSION, without

ALIGNMENT = 256
_SCRATCH = 4096


def _context() -> None:
    """TensorRT works in the context that is current in the calling thread; another than the primary one shares nothing
    with whoever made the memory."""
    if machine.current is None:
        raise ContractBroken("TensorRT is called in a thread in which no CUDA context is current")
    if not machine.current.primary:
        raise ContractBroken("TensorRT is called in another context than the primary one")


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        initialised(logger, ILogger)
        self.logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        _context()
        plan = bytes(serialized_engine)
        if not plan.startswith(MAGIC):
            self.logger._error("Serialization assertion magicTagRead == kMAGIC_TAG failed: Magic tag does not match")
            return None
        start = len(MAGIC) + 8
        size = int.from_bytes(plan[len(MAGIC) : start], "little")
        header, graph = json.loads(plan[start : start + size]), plan[start + size :]
        if header["version"] != VERSION:
            self.logger._error("Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed")
            return None
        if tuple(header["capability"]) != machine.capability:
            self.logger._error("Engine plan was built for another compute capability")
            return None
        if zlib.crc32(graph) != header["crc"]:
            raise ContractBroken("a damaged plan was given to TensorRT, which may take the process down")
        return ICudaEngine(header, graph, self.logger)


@without(
    device_memory_size=STRONG,
    create_execution_context_without_device_memory=STRONG,
    device_memory_size_v2=OLD,
    get_device_memory_size_for_profile_v2=OLD,
)
class ICudaEngine:
    def __init__(self, header: dict[str, Any], graph: bytes, logger: ILogger) -> None:
        self._header, self._graph, self._logger = header, graph, logger
        self._tensors = {
            name: (TensorIOMode.INPUT if into else TensorIOMode.OUTPUT, Dims(shape), DataType[kind])
            for name, into, shape, kind, _ in header["tensors"]
        }
        self._sizes = {name: sizes for name, *_, sizes in header["tensors"]}
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._taken: set[int] = set()
        self._had_context = False
        """The first context gets profile 0 by itself; every other one has to choose (createExecutionContext)."""
        self.name = "Unnamed Network 0"

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    @property
    def num_optimization_profiles(self) -> int:
        return max(1, len(self._header["profiles"]))

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return self._tensors[name][0] if name in self._tensors else TensorIOMode.NONE

    def get_tensor_shape(self, name: str) -> Dims:
        return self._tensors[name][1]

    def get_tensor_dtype(self, name: str) -> Any:
        return self._tensors[name][2]

    def get_tensor_location(self, name: str) -> Any:
        return TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
        return [Dims(shape) for shape in self._header["ranges"][profile_index][name]]

    @property
    def device_memory_size(self) -> int:
        return _SCRATCH * self.num_optimization_profiles

    @property
    def device_memory_size_v2(self) -> int:
        return _SCRATCH * self.num_optimization_profiles

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        return _SCRATCH * (profile_index + 1)

    def serialize(self) -> IHostMemory:
        raise ContractBroken("not part of the surface that is used")

    if OLD:

        def create_execution_context(self) -> IExecutionContext | None:
            return self._create(own_memory=True)

    else:

        def create_execution_context(
            self, strategy: Any = ExecutionContextAllocationStrategy.STATIC
        ) -> IExecutionContext | None:
            if not isinstance(strategy, ExecutionContextAllocationStrategy):
                raise TypeError(f"incompatible function arguments: {strategy!r}")
            return self._create(own_memory=strategy is not ExecutionContextAllocationStrategy.USER_MANAGED)

    def create_execution_context_without_device_memory(self) -> IExecutionContext | None:
        return self._create(own_memory=False)

    def _create(self, own_memory: bool) -> IExecutionContext | None:
        _context()
        if faults.contexts > 0:
            faults.contexts -= 1
            self._logger._error("[defaultAllocator.cpp::allocate] Cuda Runtime (out of memory)")
            return None
        memory = machine.allocate(_SCRATCH * self.num_optimization_profiles, "device") if own_memory else None
        if own_memory and memory is None:
            self._logger._error("[defaultAllocator.cpp::allocate] Cuda Runtime (out of memory)")
            return None
        return IExecutionContext(self, memory)


@without(set_device_memory=OLD)
class IExecutionContext:
    def __init__(self, engine: ICudaEngine, memory: Any) -> None:
        self.engine, self._memory = engine, memory
        self._scratch: tuple[int, int] | None = None
        self._shapes: dict[str, Dims] = {}
        self._addresses: dict[str, int] = {}
        self._profile = -1
        self._running = threading.Lock()
        if not engine._header["profiles"] or not engine._had_context:
            self._choose(0)
        engine._had_context = True

    def __del__(self) -> None:
        if self._memory is not None:
            machine.free(self._memory.address)
        self.engine._taken.discard(self._profile)

    def _choose(self, profile: int) -> bool:
        """Before 10, one profile of a graph whose shapes vary belongs to one context, unless the engine shares them."""
        if self.engine._header["profiles"] and not self.engine._header["shared"]:
            if profile in self.engine._taken:
                self.engine._logger._error(f"Profile {profile} has been chosen by another IExecutionContext")
                return profile == 0 and self._profile == -1
            self.engine._taken.discard(self._profile)
            self.engine._taken.add(profile)
        self._profile = profile
        self._shapes.clear()
        return True

    @property
    def active_optimization_profile(self) -> int:
        return self._profile

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        _context()
        machine.stream(stream_handle)
        if not 0 <= profile_index < self.engine.num_optimization_profiles or not self._choose(profile_index):
            raise RuntimeError(f"Error in set optimization profile {profile_index}")
        return True

    def set_device_memory(self, memory: int, size: int) -> None:
        if memory % ALIGNMENT:
            raise ContractBroken("device memory of a context must begin at a multiple of 256")
        self._scratch = memory, size

    def set_input_shape(self, name: str, shape: Any) -> bool:
        if self.engine.get_tensor_mode(name) != TensorIOMode.INPUT:
            return self._refuse(f"set_input_shape: {name} is no input")
        wanted, fixed = Dims(shape), self.engine.get_tensor_shape(name)
        if -1 in fixed:
            if self._profile < 0:
                return self._refuse("no optimization profile has been chosen for this IExecutionContext")
            lowest, _, highest = self.engine.get_tensor_profile_shape(name, self._profile)
            fits = len(wanted) == len(fixed) and all(
                low <= one <= high for low, one, high in zip(lowest, wanted, highest, strict=True)
            )
            if not fits:
                return self._refuse(f"{name}: {wanted} is outside profile {self._profile}: {lowest} to {highest}")
        elif wanted != fixed:
            return self._refuse(f"{name}: {wanted}, expected {fixed}")
        self._shapes[name] = wanted
        return True

    def get_tensor_shape(self, name: str) -> Dims:
        return self._shapes.get(name, self.engine.get_tensor_shape(name))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if not isinstance(memory, int):
            raise TypeError(f"set_tensor_address(): incompatible function arguments: {type(memory).__name__}")
        if self.engine.get_tensor_mode(name) == TensorIOMode.NONE:
            return self._refuse(f"set_tensor_address: {name} is no tensor of the engine")
        if memory % ALIGNMENT:
            return self._refuse(f"set_tensor_address: {name}: {memory:#x} is no multiple of {ALIGNMENT}")
        self._addresses[name] = memory
        return True

    def get_tensor_address(self, name: str) -> int:
        return self._addresses.get(name, 0)

    def infer_shapes(self) -> list[str]:
        return [
            name
            for name, (mode, shape, _) in self.engine._tensors.items()
            if mode == TensorIOMode.INPUT and -1 in shape and name not in self._shapes
        ]

    def execute_async_v3(self, stream_handle: int) -> bool:
        _context()
        machine.stream(stream_handle)
        if faults.execute > 0:
            faults.execute -= 1
            return self._refuse("[executionContext.cpp::enqueueInternal] simulated failure")
        if missing := self.infer_shapes():
            return self._refuse(f"shapes of {missing} are not set")
        if self._letters() is None:
            return self._refuse("IExecutionContext::enqueueV3: dimensions of one name have different values")
        if unset := [name for name in self.engine._tensors if not self._addresses.get(name)]:
            return self._refuse(f"Address is not set for {unset[0]}")
        if not OLD and self._memory is None:
            needed = self.engine.get_device_memory_size_for_profile_v2(self._profile)
            if self._scratch is None or self._scratch[1] < needed:
                return self._refuse(f"device memory of {self._scratch}, expected {needed} bytes")
            machine.at(*self._scratch)
        if not self._running.acquire(blocking=False):
            raise ContractBroken("two threads use one IExecutionContext at a time")
        try:
            # Addresses and shapes are those of this moment; memory is read when the stream gets there.
            work = self._work(dict(self._addresses))
            machine.counts["inference"] += 1
            machine.queue(stream_handle, work)
        finally:
            self._running.release()
        return True

    def _letters(self) -> dict[str, int] | None:
        """What the names of dimensions stand for; None where inputs disagree."""
        found: dict[str, int] = {}
        for name, shape in self._shapes.items():
            for size, value in zip(self.engine._sizes[name], shape, strict=True):
                if isinstance(size, str) and found.setdefault(size, value) != value:
                    return None
        return found

    def _work(self, addresses: dict[str, int]) -> Any:
        engine = self.engine
        letters = self._letters() or {}

        def view(name: str) -> Any:
            shape = [letters[size] if isinstance(size, str) else size for size in engine._sizes[name]]
            kind = engine.get_tensor_dtype(name)
            raw = machine.at(addresses[name], int(np.prod(shape)) * kind.itemsize)
            return raw.view(np.uint16 if kind.name == "BF16" else nptype(kind)).reshape(shape)

        views = {name: view(name) for name in engine._tensors}
        inputs = {name for name, (mode, _, _) in engine._tensors.items() if mode == TensorIOMode.INPUT}
        outputs = [name for name in engine._tensors if name not in inputs]

        def run() -> None:
            feeds = {name: _ort_value(views[name], engine.get_tensor_dtype(name)) for name in inputs}
            binding = engine._session.io_binding()
            for name, value in feeds.items():
                binding.bind_ortvalue_input(name, value)
            for name in outputs:
                binding.bind_output(name, "cpu")
            engine._session.run_with_iobinding(binding)
            for name, value in zip(outputs, binding.get_outputs(), strict=True):
                if engine.get_tensor_dtype(name).name == "BF16":
                    source = np.ctypeslib.as_array(
                        (np.ctypeslib.ctypes.c_uint16 * views[name].size).from_address(value.data_ptr())
                    )
                    views[name][:] = source.reshape(views[name].shape)
                else:
                    views[name][:] = value.numpy()

        return run

    def _refuse(self, text: str) -> bool:
        self.engine._logger._error(text)
        return False


def _ort_value(array: Any, kind: Any) -> Any:
    if kind.name != "BF16":
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
    from onnx import TensorProto

    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(np.ascontiguousarray(array), TensorProto.BFLOAT16)
