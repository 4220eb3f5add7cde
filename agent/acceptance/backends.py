"""What this machine uses, beside the host's own parts to compare it with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from agent.acceptance.picturing import OnCpu, OnGpu, Sight
from agent.runtimes import choose_decoder, choose_encoder
from agent.vision import choose_vision
from engines.manifest import Model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.language import LanguageModel
from engines.onnx.runtime import OnnxRuntime
from engines.plan import Encoder
from engines.preprocess import Preprocessor
from engines.tensorrt.building import Watch
from engines.tensorrt.encoder import TensorRtEncoder
from engines.tensorrt.language import TensorRtLanguage
from engines.text.language import Language
from vpi_ops.choice import host_ops, host_shrink
from vpi_ops.host import HostOps
from vpi_ops.interface import VisionOps

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class Ops:
    """Image operations. name, flow: where they run, in words. not_taken: why nothing better does it, a sentence
    each."""

    used: VisionOps
    host: VisionOps
    name: str = "OpenCV"
    flow: str = "OpenCV DIS"
    not_taken: tuple[str, ...] = ()

    @property
    def flow_own(self) -> bool:
        """Whether dense flow is the host's own; a backend may have given up its engine at any time."""
        return self.own("flow") or not getattr(self.used, "uses_ofa", True)

    def own(self, *methods: str) -> bool:
        """Whether these methods of `used` are the host's own, or taken over from it as they are."""
        return all(getattr(type(self.used), method) is getattr(type(self.host), method) for method in methods)


@dataclass(frozen=True, slots=True)
class Compared(Generic[Part]):
    """One part. name: what runs it, in words. not_taken: as for `Ops`."""

    used: Part
    host: Part
    name: str = "ONNX Runtime"
    not_taken: tuple[str, ...] = ()

    @property
    def own(self) -> bool:
        """Whether `used` is the host's own kind."""
        return type(self.used) is type(self.host)


class Sights(Compared[Sight]):
    """What makes pictures and patches of frames."""

    __slots__ = ()


class Encoders(Compared[Encoder]):
    """The vision tower."""

    __slots__ = ()


class Words(Compared[Language]):
    """The language model."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Backends:
    """Everything that is compared. model: whose tower and words they are."""

    model: Model
    ops: Ops
    sights: Sights
    encoders: Encoders
    words: Words

    @property
    def not_taken(self) -> tuple[str, ...]:
        """Why nothing better is used, a sentence each."""
        return (*self.ops.not_taken, *self.encoders.not_taken, *self.words.not_taken)


def backends(model: Model, progress: Callable[[str], None] = lambda _: None) -> Backends:
    """What the agent would choose here, without what it would fall back to later: a fault is to be seen. Builds engines
    that are not there. Raises EngineFault."""
    watch = Watch(lambda step, _: progress(step))
    vision, encoding = choose_vision(), choose_encoder(model, watch=watch)
    speaking = choose_decoder(model, beside=encoding, watch=watch)
    preprocessor = Preprocessor(model.manifest, host_shrink())
    ops, pictures = vision.camera(preprocessor)
    by_host = OnCpu(Preprocessor(model.manifest))
    sights = Sights(by_host, by_host)
    if vision.on_gpu:
        from vpi_ops.jetson import JetsonOps
        from vpi_ops.jetson_pictures import DevicePictures

        if isinstance(ops, JetsonOps) and isinstance(pictures, DevicePictures):
            sights = Sights(OnGpu(ops, pictures, preprocessor), by_host, vision.patches)
    runtime = OnnxRuntime(model, spin=False)
    host = OnnxEncoder(runtime)
    # Rows that only fill up a count would refresh tokens that the host's encoder keeps.
    used = OnnxEncoder(runtime) if encoding.runtime is None else TensorRtEncoder(encoding.runtime, refresh=False)
    host_words = LanguageModel(runtime)
    words = host_words if speaking.runtime is None else TensorRtLanguage(speaking.runtime, runtime)
    beside = HostOps() if vision.on_gpu else host_ops()  # kernels inherit from the one, a plain machine uses the other
    return Backends(
        model,
        Ops(ops, beside, vision.patches, vision.flow, (*vision.patches_why, *vision.flow_why)),
        sights,
        Encoders(used, host, encoding.used, encoding.not_taken),
        Words(words, host_words, speaking.used, speaking.not_taken),
    )
