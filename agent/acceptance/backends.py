"""What this machine uses, beside the host's own parts to compare it with."""

from __future__ import annotations

from dataclasses import dataclass

from engines.manifest import Model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.plan import Encoder
from vpi_ops.host import HostOps
from vpi_ops.interface import VisionOps


@dataclass(frozen=True, slots=True)
class Ops:
    """Image operations. name, flow: where they run, in words."""

    used: VisionOps
    host: VisionOps
    name: str = "the host: OpenCV and NumPy"
    flow: str = "the host: OpenCV DIS"

    @property
    def flow_own(self) -> bool:
        """Whether dense flow is the host's own; a backend may have given up its engine at any time."""
        return self.own("flow") or not getattr(self.used, "uses_ofa", True)

    def own(self, *methods: str) -> bool:
        """Whether these methods of `used` are the host's own, or taken over from it as they are."""
        return all(getattr(type(self.used), method) is getattr(type(self.host), method) for method in methods)


@dataclass(frozen=True, slots=True)
class Encoders:
    """The vision tower. own: `used` is the host's own kind."""

    used: Encoder
    host: Encoder
    name: str = "the host: ONNX Runtime"

    @property
    def own(self) -> bool:
        return type(self.used) is type(self.host)


@dataclass(frozen=True, slots=True)
class Backends:
    """Everything that is compared. model: whose tower it is."""

    model: Model
    ops: Ops
    encoders: Encoders


def backends(model: Model) -> Backends:
    """What is used here. Raises EngineFault."""
    runtime = OnnxRuntime(model, spin=False)
    return Backends(model, Ops(HostOps(), HostOps()), Encoders(OnnxEncoder(runtime), OnnxEncoder(runtime)))
