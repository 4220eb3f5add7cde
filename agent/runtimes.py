"""Which runtime encodes and which makes words, chosen once at start: TensorRT where all it needs is there, else ONNX
Runtime; and why.

TensorRT wants its own module, PyCUDA, a GPU, our kernels, and engines that were built for exactly this machine. Each
that is missing is named with the command that brings it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import onnxruntime
import structlog

from config.errors import EngineFault, StorageError, in_words
from engines.fallback import FallbackEncoder, FallbackLanguage
from engines.manifest import Model
from engines.onnx.language import LanguageModel
from engines.onnx.runtime import OnnxRuntime
from engines.plan import Encoder
from engines.tensorrt.building import Watch
from engines.tensorrt.cuda import CudaGpu, Scatter
from engines.tensorrt.device import Gpu
from engines.tensorrt.encoder import TensorRtEncoder
from engines.tensorrt.language import NoRoom, TensorRtLanguage
from engines.tensorrt.purpose import DECODER, ENCODER, Purpose
from engines.tensorrt.runtime import TensorRtRuntime
from engines.text.language import Language

log = structlog.get_logger()
Has = Callable[[str], bool]
Tell = Callable[[str], object]
_MISSING = {
    "tensorrt": "TensorRT runs encoder and decoder on the GPU; it comes with NVIDIA JetPack (apt install "
    "python3-libnvinfer; an environment needs --system-site-packages to see it) and is not on this machine.",
    "pycuda": "TensorRT is here, but not PyCUDA, which gives it memory: pip install 'stillwatch[jetson]'.",
}


@dataclass(frozen=True, slots=True)
class EncoderChoice:
    """used: what encodes, in words. not_taken: a sentence for each better choice that was not taken, or that was taken
    with less than the best precision. runtime: TensorRT's, None where ONNX Runtime encodes."""

    used: str
    not_taken: tuple[str, ...]
    runtime: TensorRtRuntime | None = None

    def encoder(self, host: Callable[[], Encoder], tell: Tell = log.error) -> Encoder:
        """An encoder of one camera. host: makes one of ONNX Runtime's, used where TensorRT isn't, and kept behind it
        for when it fails. tell: hears a sentence when TensorRT, though chosen, does not encode. Raises EngineFault,
        ModelError."""
        if self.runtime is None:
            return host()
        try:
            first = TensorRtEncoder(self.runtime)
        except Exception as error:  # as in `_choose`
            tell(f"a camera's encoder runs on ONNX Runtime: {in_words(error)}")
            return host()
        return FallbackEncoder(first, host, tell)


@dataclass(frozen=True, slots=True)
class DecoderChoice:
    """As `EncoderChoice`, of what makes the built-in words."""

    used: str
    not_taken: tuple[str, ...]
    runtime: TensorRtRuntime | None = None

    def language(self, host: OnnxRuntime, tell: Tell = log.error) -> Language:
        """The language model. host: reads what TensorRT doesn't, and everything where that isn't used. tell: as above.
        Raises EngineFault, ModelError."""
        if self.runtime is None:
            return LanguageModel(host)
        try:
            first = TensorRtLanguage(self.runtime, host)
        except Exception as error:  # as in `_choose`
            tell(f"the decoder runs on ONNX Runtime: {in_words(error)}")
            return LanguageModel(host)
        return FallbackLanguage(first, lambda: LanguageModel(host), tell, NoRoom)


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
    return EncoderChoice(*_choose(model, ENCODER, has, precision, may_build, watch, None))


def choose_decoder(
    model: Model,
    *,
    beside: EncoderChoice | None = None,
    has: Has = installed,
    precision: str | None = None,
    may_build: bool = True,
    watch: Watch | None = None,
) -> DecoderChoice:
    """As `choose_encoder`. beside: what encodes; the GPU that it has open is used again."""
    gpu = beside.runtime.gpu if beside is not None and beside.runtime is not None else None
    return DecoderChoice(*_choose(model, DECODER, has, precision, may_build, watch, gpu))


def _choose(
    model: Model,
    purpose: Purpose,
    has: Has,
    precision: str | None,
    may_build: bool,
    watch: Watch | None,
    gpu: Gpu | None,
) -> tuple[str, tuple[str, ...], TensorRtRuntime | None]:
    host = f"ONNX Runtime {onnxruntime.__version__} on the CPU"
    for module, sentence in _MISSING.items():
        if not has(module):
            return host, (sentence,), None
    try:
        runtime = open_tensorrt(model, purpose=purpose, gpu=gpu, precision=precision, may_build=may_build, watch=watch)
    except (EngineFault, StorageError) as fault:
        return host, (f"TensorRT is here and can't be used: {fault}.",), None
    except Exception as error:  # bindings that are not as we know them, or whose libraries are missing
        log.exception("TensorRT or PyCUDA isn't as expected", reason=in_words(error))
        return host, (f"TensorRT or PyCUDA isn't as expected: {in_words(error)}.",), None
    used = f"TensorRT {runtime.version} ({runtime.precision.value}) on {runtime.gpu.name}"
    return used, runtime.notes, runtime


def open_tensorrt(
    model: Model,
    *,
    purpose: Purpose = ENCODER,
    gpu: Gpu | None = None,
    precision: str | None = None,
    may_build: bool = True,
    again: bool = False,
    watch: Watch | None = None,
) -> TensorRtRuntime:
    """The engines of a model on this machine's GPU; gpu: where it is open already. Raises EngineFault."""
    return TensorRtRuntime(
        model,
        gpu or CudaGpu(_scatter),
        purpose=purpose,
        precision=precision,
        may_build=may_build,
        again=again,
        watch=watch,
    )


def _scatter() -> Scatter:
    from vpi_ops.cuda import load

    try:
        return load().scatter_rows
    except ImportError as error:
        raise EngineFault(str(error)) from error
