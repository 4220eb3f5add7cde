"""The builder. It returns None instead of raising, and says why to the logger alone."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from typing import Any

from simulated_cuda import machine

from tensorrt.faults import faults
from tensorrt.kinds import (
    BuilderFlag,
    DataType,
    Dims,
    IHostMemory,
    ILogger,
    IProgressMonitor,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    PreviewFeature,
    initialised,
)
from tensorrt.network import INetworkDefinition, as_built
from tensorrt.release import OLD, VERSION, without

MAGIC = b"SIMULATED PLAN\n"
TIMING = b"timings "


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: dict[str, tuple[Dims, Dims, Dims]] = {}

    def set_shape(self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]) -> None:
        shapes = Dims(min), Dims(opt), Dims(max)
        ordered = all(a <= b <= c for a, b, c in zip(*shapes, strict=False))
        if len({len(shape) for shape in shapes}) != 1 or not ordered:
            raise RuntimeError(f"Shapes of {input} are inconsistent: {shapes}")
        self._shapes[input] = shapes

    def get_shape(self, input: str) -> list[Dims]:
        return list(self._shapes.get(input, ()))

    def __bool__(self) -> bool:
        return True


class ITimingCache:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._content)

    def combine(self, input_cache: ITimingCache, ignore_mismatch: bool) -> bool:
        return True

    def reset(self) -> bool:
        self._content = b""
        return True


@without(progress_monitor=OLD)
class IBuilderConfig:
    def __init__(self) -> None:
        self._flags: set[Any] = set()
        self._pools: dict[Any, int] = {}
        self._profiles: list[IOptimizationProfile] = []
        self._timing: ITimingCache | None = None
        self._previews: set[Any] = set()
        self._monitor: IProgressMonitor | None = None
        self.builder_optimization_level = 3

    def set_flag(self, flag: Any) -> None:
        _of(flag, BuilderFlag)
        self._flags.add(flag)

    def get_flag(self, flag: Any) -> bool:
        _of(flag, BuilderFlag)
        return flag in self._flags

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        _of(pool, MemoryPoolType)
        if not isinstance(pool_size, int):
            raise TypeError("pool_size must be an int")
        self._pools[pool] = pool_size

    def get_memory_pool_limit(self, pool: Any) -> int:
        return self._pools.get(pool, machine.budget)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._profiles)

    def set_preview_feature(self, feature: Any, enable: bool) -> None:
        _of(feature, PreviewFeature)
        (self._previews.add if enable else self._previews.discard)(feature)

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if cache._content and not cache._content.startswith(TIMING + VERSION.encode()):
            return False
        self._timing = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._timing

    @property
    def progress_monitor(self) -> IProgressMonitor | None:
        return self._monitor

    @progress_monitor.setter
    def progress_monitor(self, monitor: IProgressMonitor) -> None:
        initialised(monitor, IProgressMonitor)
        self._monitor = monitor


def _of(value: Any, kind: Any) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"incompatible function arguments: expected {kind.__name__}, got {value!r}")


class Builder:
    def __init__(self, logger: ILogger) -> None:
        initialised(logger, ILogger)
        self.logger = logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        known = sum(1 << int(flag) for flag in NetworkDefinitionCreationFlag)
        if flags & ~known:
            raise RuntimeError(f"unknown network flags {flags}")
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        if machine.current is None or not machine.current.primary:
            self.logger._error("the builder runs without the primary CUDA context")
            return None
        workspace = config.get_memory_pool_limit(MemoryPoolType.WORKSPACE)
        faults.workspaces.append(workspace)
        if faults.build and faults.builds > 0 and not workspace < faults.build_fits:
            faults.builds -= 1
            self.logger._error(faults.build)
            return None
        if reason := _incomplete(network, config):
            self.logger._error(reason)
            return None
        _report(config._monitor)
        half = next((flag.name for flag in config._flags if flag.name in ("FP16", "BF16")), None)
        precision = {"FP16": "HALF", "BF16": "BF16"}.get(half or "")
        stray = faults.stray if not faults.stray_only or (half or "FP32") in faults.stray_only.split() else 0.0
        graph = as_built(network, DataType[precision] if precision else None, stray)
        header = {
            "version": VERSION,
            "capability": machine.capability,
            "shared": not OLD or any(one.name == "PROFILE_SHARING_0806" for one in config._previews),
            "profiles": [{name: one[1] for name, one in profile._shapes.items()} for profile in config._profiles],
            "ranges": [profile._shapes for profile in config._profiles],
            "tensors": [
                (tensor.name, tensor.is_network_input, tensor.shape, tensor.dtype.name, tensor._sizes)
                for tensor in [*network._inputs, *network._outputs]
            ],
            "crc": zlib.crc32(graph),
        }
        text = json.dumps(header).encode()
        if config._timing is not None:
            config._timing._content = TIMING + VERSION.encode() + b" " + str(network.num_layers).encode()
        return IHostMemory(MAGIC + len(text).to_bytes(8, "little") + text + graph)


def _incomplete(network: INetworkDefinition, config: IBuilderConfig) -> str:
    """Every input that varies needs a range in every profile."""
    varying = {tensor.name for tensor in network._inputs if -1 in tensor.shape}
    if varying and not config._profiles:
        return f"Network has dynamic or shape inputs, but no optimization profile has been defined: {sorted(varying)}"
    for number, profile in enumerate(config._profiles):
        for tensor in network._inputs:
            shapes = profile._shapes.get(tensor.name)
            if tensor.name in varying and shapes is None:
                return f"{tensor.name} is dynamic, and profile {number} has no range for it"
            if shapes and any(
                len(one) != len(tensor.shape) or any(w not in (-1, g) for g, w in zip(one, tensor.shape, strict=True))
                for one in shapes
            ):
                return f"profile {number}: {shapes} does not fit {tensor.name} {tensor.shape}"
    return ""


def _report(monitor: IProgressMonitor | None) -> None:
    """What a callback raises is printed, and nobody hears of it."""
    if monitor is None:
        return
    steps: list[tuple[str, tuple[Any, ...]]] = [
        ("phase_start", ("Building engine", None, 2)),
        ("phase_start", ("Timing kernels", "Building engine", 3)),
        *(("step_complete", ("Timing kernels", step)) for step in range(3)),
        ("phase_finish", ("Timing kernels",)),
        *(("step_complete", ("Building engine", step)) for step in range(2)),
        ("phase_finish", ("Building engine",)),
    ]
    for callback, arguments in steps:
        try:
            getattr(monitor, callback)(*arguments)
        except Exception as error:
            print(f"[simulated TensorRT] {callback} raised {error!r}")  # noqa: T201
