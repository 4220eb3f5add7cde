"""Enums and small values. Members that a release lacks are not there."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np

from tensorrt.release import OLD, STRONG, here


def _enum(name: str, members: str) -> Any:
    """Like pybind11's: int() works, arithmetic doesn't."""
    made = enum.Enum(name, members.split(), start=0)  # type: ignore[misc]
    made.__int__ = lambda self: self.value  # type: ignore[attr-defined]
    return made


_FLAGS = "DEBUG GPU_FALLBACK REFIT DISABLE_TIMING_CACHE TF32 SPARSE_WEIGHTS SAFETY_SCOPE DIRECT_IO"
_FLAGS += " VERSION_COMPATIBLE EXCLUDE_LEAN_RUNTIME"
_FLAGS += "" if STRONG else " FP16 INT8 OBEY_PRECISION_CONSTRAINTS PREFER_PRECISION_CONSTRAINTS FP8"
_FLAGS += "" if OLD else " STRIP_PLAN REFIT_IDENTICAL WEIGHT_STREAMING ERROR_ON_TIMING_CACHE_MISS"
_FLAGS += " BF16 INT4" if here((10, 0), (10, 99)) else ""
BuilderFlag = _enum("BuilderFlag", _FLAGS)
NetworkDefinitionCreationFlag = _enum(
    "NetworkDefinitionCreationFlag",
    "STRONGLY_TYPED" if STRONG else "EXPLICIT_BATCH" + ("" if OLD else " STRONGLY_TYPED"),
)
MemoryPoolType = _enum("MemoryPoolType", "WORKSPACE DLA_MANAGED_SRAM DLA_LOCAL_DRAM DLA_GLOBAL_DRAM TACTIC_DRAM")
TensorIOMode = _enum("TensorIOMode", "NONE INPUT OUTPUT")
TensorFormat = _enum("TensorFormat", "LINEAR CHW2 HWC8")
TensorLocation = _enum("TensorLocation", "DEVICE HOST")
PreviewFeature = _enum(
    "PreviewFeature", ("" if STRONG else "PROFILE_SHARING_0806 ") + ("" if OLD else "ALIASED_PLUGIN_IO_10_03")
)
ExecutionContextAllocationStrategy = _enum(
    "ExecutionContextAllocationStrategy", "STATIC ON_PROFILE_CHANGE USER_MANAGED"
)
_SIZES = {"FLOAT": 4, "HALF": 2, "INT8": 1, "INT32": 4, "BOOL": 1, "UINT8": 1, "FP8": 1, "BF16": 2, "INT64": 8}
DataType = _enum("DataType", "FLOAT HALF INT8 INT32 BOOL UINT8 FP8" + ("" if OLD else " BF16 INT64"))
DataType.itemsize = property(lambda self: _SIZES[self.name])

float32, float16, int32 = DataType.FLOAT, DataType.HALF, DataType.INT32
if not OLD:
    bfloat16, int64 = DataType.BF16, DataType.INT64

_NUMPY = {"FLOAT": np.float32, "HALF": np.float16, "INT8": np.int8, "INT32": np.int32, "BOOL": np.bool_,
          "UINT8": np.uint8, "INT64": np.int64}  # fmt: skip


def nptype(trt_type: Any) -> Any:
    if trt_type.name not in _NUMPY:
        raise TypeError("Could not resolve TensorRT datatype to an equivalent numpy datatype.")
    return _NUMPY[trt_type.name]


class Dims(tuple):  # type: ignore[type-arg]
    """Compares with tuples; -1 for a dimension that varies."""


class IHostMemory(bytes):
    """The buffer protocol, and its size."""

    @property
    def nbytes(self) -> int:
        return len(self)


class ILogger:
    """To be subclassed; the base must be initialised."""

    Severity = _enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")

    def __init__(self) -> None:
        self._ready = True

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError

    def _error(self, msg: str) -> None:
        """What TensorRT says instead of raising; exceptions of the callback are swallowed."""
        try:
            self.log(ILogger.Severity.ERROR, msg)
        except Exception as error:
            print(f"[simulated TensorRT] logger raised {error!r}")  # noqa: T201


class Logger(ILogger):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = ILogger.Severity

    def __init__(self, min_severity: Any = ILogger.Severity.WARNING) -> None:
        super().__init__()
        self.min_severity = min_severity

    def log(self, severity: Any, msg: str) -> None:
        print(f"[TRT] {severity.name}: {msg}")  # noqa: T201


def initialised(thing: Any, base: type) -> None:
    """pybind11 refuses an object whose class forgot to call the base's __init__."""
    if not isinstance(thing, base):
        raise TypeError(f"incompatible function arguments: expected {base.__name__}, got {type(thing).__name__}")
    if not getattr(thing, "_ready", False):
        raise TypeError(f"{type(thing).__name__}.__init__() must call {base.__name__}.__init__")


class IProgressMonitor:
    """Since 10.0."""

    def __init__(self) -> None:
        self._ready = True

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError
