"""Where image operations run, chosen once at start: the GPU's kernels and the flow engine (OFA) of a Jetson where they
work, else the CPU; and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import cv2
import structlog

from agent.coherence.pipeline import Pictures
from config.errors import in_words
from engines.preprocess import Preprocessor
from vpi_ops.choice import host_kind, host_ops, host_why
from vpi_ops.interface import VisionOps

log = structlog.get_logger()
Has = Callable[[str], bool]
Tell = Callable[[str], object]

_NO_PYCUDA = (
    "Our CUDA kernels compare patches on an NVIDIA GPU; PyCUDA, which launches them, is not on this machine: pip "
    "install 'stillwatch[jetson]' where the CUDA toolkit is (NVIDIA JetPack has it)."
)
_NO_VPI = (
    "vpi computes dense flow on the flow engine (OFA) of a Jetson; it comes with NVIDIA JetPack (apt install "
    "python3.10-vpi3 with JetPack 6, python3.12-vpi4 with JetPack 7; an environment needs --system-site-packages to "
    "see it) and is not on this machine."
)

_VPI_ALONE = "vpi is here, but not PyCUDA, which gives it memory: pip install 'stillwatch[jetson]'."
_AGAIN = "if CUDA itself is well, build it anew: pip install --force-reinstall --no-cache-dir pycuda"


@dataclass(frozen=True, slots=True)
class VisionChoice:
    """patches, flow: what compares patches and computes dense flow, in words. patches_why, flow_why: a sentence for
    each better choice that was not taken. on_gpu: patches are compared there."""

    patches: str
    flow: str
    patches_why: tuple[str, ...] = ()
    flow_why: tuple[str, ...] = ()
    on_gpu: bool = False

    def camera(self, preprocessor: Preprocessor, tell: Tell = log.error) -> tuple[VisionOps, Pictures]:
        """The operations of one camera, and what makes its model pictures. tell: hears a sentence when GPU or OFA,
        though chosen, don't do it, now or later."""
        if not self.on_gpu:
            return host_ops(), preprocessor
        from vpi_ops.jetson import open_ops
        from vpi_ops.jetson_pictures import DevicePictures

        try:
            ops = open_ops(tell=tell).ops
            return ops, DevicePictures(ops, preprocessor)
        except Exception as error:  # as in `choose_vision`
            tell(f"image operations of a camera run on the CPU: {in_words(error)}")
            return host_ops(), preprocessor


def installed(module: str) -> bool:
    """Is a Python module there? Nothing is imported."""
    return find_spec(module) is not None


def choose_vision(*, has: Has = installed) -> VisionChoice:
    """Tries what is there: a kernel that can't be had or a flow engine that sees nothing move is not chosen. Raises
    nothing that hardware or its bindings raise: that is why they are not chosen."""
    host_flow = f"OpenCV {cv2.__version__} DIS on the CPU"
    slower = () if (why := host_why()) is None else (why,)
    no_vpi = () if has("vpi") else (_NO_VPI,)
    if not has("pycuda"):
        return VisionChoice(host_kind(), host_flow, (_NO_PYCUDA, *slower), no_vpi or (_VPI_ALONE,))
    from vpi_ops.jetson import open_ops

    try:
        vision = open_ops()
    except Exception as error:  # of which class depends on what is broken, and in which version
        log.warning("the GPU can't be used for image operations", reason=in_words(error), exc_info=True)
        why = f"PyCUDA is here and can't be used: {in_words(error)}; {_AGAIN}."
        return VisionChoice(host_kind(), host_flow, (why, *slower), no_vpi)
    patches = f"CUDA kernels on {vision.gpu.name} ({vision.gpu.arch}), {vision.kernels}"
    return VisionChoice(patches, vision.flow or host_flow, (), no_vpi or vision.flow_why, True)
