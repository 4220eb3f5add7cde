"""Which runtime encodes, chosen once at start: TensorRT where all it needs is there, else ONNX Runtime; and why.

TensorRT wants its own module, PyCUDA, a GPU, our kernels, and engines that were built for exactly this machine. Each
that is missing is named with the command that brings it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import onnxruntime
import structlog

from config.errors import EngineFault, StorageError
from engines.fallback import FallbackEncoder
from engines.manifest import Model
from engines.plan import Encoder
from engines.tensorrt.building import Watch
from engines.tensorrt.cuda import CudaGpu, Scatter
from engines.tensorrt.encoder import TensorRtEncoder
from engines.tensorrt.runtime import TensorRtRuntime, graphs_missing

log = structlog.get_logger()
Has = Callable[[str], bool]
_MISSING = {
    "tensorrt": "TensorRT runs the encoder on the GPU; it comes with NVIDIA JetPack (apt install python3-libnvinfer; "
    "an environment needs --system-site-packages to see it) and is not on this machine.",
    "pycuda": "TensorRT is here, but not PyCUDA, which gives it memory: pip install 'stillwatch[jetson]'.",
}


@dataclass(frozen=True, slots=True)
class EncoderChoice:
    """used: what encodes, in words. not_taken: a sentence for each better choice that was not taken, or that was taken
    with less than the best precision. runtime: TensorRT's, None where ONNX Runtime encodes."""

    used: str
    not_taken: tuple[str, ...]
    runtime: TensorRtRuntime | None = None

    def encoder(self, host: Callable[[], Encoder]) -> Encoder:
        """An encoder of one camera. host: makes one of ONNX Runtime's, used where TensorRT isn't, and kept behind it
        for when it fails. Raises EngineFault, ModelError."""
        if self.runtime is None:
            return host()
        try:
            first = TensorRtEncoder(self.runtime)
        except EngineFault as fault:
            log.warning("a camera's encoder runs on ONNX Runtime", reason=str(fault))
            return host()
        return FallbackEncoder(first, host, lambda reason: log.error("encoder degraded", reason=reason))


def installed(module: str) -> bool:
    """Is a Python module there? Nothing is imported."""
    return find_spec(module) is not None


def choose_encoder(
    model: Model,
    *,
    has: Has = installed,
    precision: str | None = None,
    may_build: bool = True,
    watch: Watch | None = None,
) -> EncoderChoice:
    """may_build: build engines that are missing or stale, which takes minutes; without, only what is there is used."""
    host = f"ONNX Runtime {onnxruntime.__version__} on the CPU"
    for module, sentence in _MISSING.items():
        if not has(module):
            return EncoderChoice(host, (sentence,))
    try:
        runtime = open_tensorrt(model, precision=precision, may_build=may_build, watch=watch)
    except (EngineFault, StorageError) as fault:
        return EncoderChoice(host, (f"TensorRT is here and can't be used: {fault}.",))
    except (AttributeError, TypeError, RuntimeError) as error:  # what bindings raise that are not as we know them
        log.exception("TensorRT or PyCUDA isn't as expected")
        return EncoderChoice(host, (f"TensorRT or PyCUDA isn't as expected: {type(error).__name__}: {error}.",))
    used = f"TensorRT {runtime.version} ({runtime.precision.value}) on {runtime.gpu.name}"
    return EncoderChoice(used, runtime.notes, runtime)


def open_tensorrt(
    model: Model,
    *,
    precision: str | None = None,
    may_build: bool = True,
    again: bool = False,
    watch: Watch | None = None,
) -> TensorRtRuntime:
    """The engines of a model on this machine's GPU. Raises EngineFault."""
    if missing := graphs_missing(model):
        raise EngineFault(f"{model.folder}: lacks the graphs {', '.join(missing)}; import the model again")
    return TensorRtRuntime(model, CudaGpu(_scatter), precision=precision, may_build=may_build, again=again, watch=watch)


def _scatter() -> Scatter:
    from vpi_ops.cuda import load

    try:
        return load().scatter_rows
    except ImportError as error:
        raise EngineFault(str(error)) from error
