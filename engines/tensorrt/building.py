"""From an ONNX graph to a TensorRT plan. Takes minutes on a Jetson; says so while it goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.errors import EngineFault
from engines.tensorrt.recipe import Precision, workspace_bytes
from engines.tensorrt.releases import release_of

Progress = Callable[[str, "float | None"], object]
Shapes = Mapping[str, "tuple[int, ...]"]
"""Of the inputs whose shape the graph leaves open."""
_BEAT_S = 5.0


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told while an engine is built. progress: step, and the part done where it is known. beat: called every few
    seconds from another thread; under systemd it is where EXTEND_TIMEOUT_USEC is sent, for longer than `every_s`. What
    they raise doesn't end a build; see `Told`."""

    progress: Progress = lambda step, done: None
    beat: Callable[[], object] = lambda: None
    every_s: float = _BEAT_S


@dataclass(frozen=True, slots=True)
class Built:
    """plan: the serialised engine. timings: what the builder measured, for the next build."""

    plan: bytes
    timings: bytes


class Told:
    """Tells a `Watch`, and keeps what that raises in `faults`, a sentence each: TensorRT swallows what its callbacks
    raise, and a thread that beats would end unseen."""

    def __init__(self, watch: Watch) -> None:
        self._watch, self.every_s = watch, watch.every_s
        self.faults: tuple[str, ...] = ()

    def progress(self, step: str, done: float | None) -> None:
        try:
            self._watch.progress(step, done)
        except Exception as error:
            self._note(f"progress can't be told: {type(error).__name__}: {error}")

    def beat(self) -> None:
        try:
            self._watch.beat()
        except Exception as error:
            self._note(f"that it takes longer can't be told: {type(error).__name__}: {error}")

    def _note(self, fault: str) -> None:
        if fault not in self.faults:
            self.faults += (fault,)


class Log:
    """What TensorRT says. It returns None or False instead of raising, and the reason is only here."""

    def __init__(self, trt: Any) -> None:
        self.said: list[str] = []
        said, worst = self.said, (trt.Logger.Severity.INTERNAL_ERROR, trt.Logger.Severity.ERROR)

        class Lines(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                if severity in worst:
                    said.append(msg)

        self.logger = Lines()

    def reason(self, otherwise: str) -> str:
        """The last errors in one line."""
        last = "; ".join(self.said[-3:]) or otherwise
        self.said.clear()
        return last


def build(
    trt: Any,
    onnx: Path,
    precision: Precision,
    profiles: Sequence[Shapes],
    *,
    log: Log,
    free_bytes: int,
    timings: bytes = b"",
    told: Told,
) -> Built:
    """Build one engine. profiles: of exactly these shapes each; none for a graph of fixed shapes. free_bytes: memory
    that is free now. When the builder gives up, it is asked once more with an eighth of the workspace. Raises
    EngineFault with what TensorRT said."""
    workspace = workspace_bytes(free_bytes)
    with _beating(told):
        try:
            return _build(trt, onnx, precision, profiles, log, workspace, timings, told)
        except _GaveUp as fault:
            told.progress(f"{onnx.stem}: {fault}; once more with less workspace", None)
            try:
                return _build(trt, onnx, precision, profiles, log, workspace // 8, timings, told)
            except _GaveUp as again:
                raise EngineFault(
                    f"{onnx}: TensorRT {trt.__version__} built no engine ({precision.value}): {again}"
                ) from None


class _GaveUp(Exception):
    """build_serialized_network returned None."""


def _build(
    trt: Any,
    onnx: Path,
    precision: Precision,
    profiles: Sequence[Shapes],
    log: Log,
    workspace: int,
    timings: bytes,
    told: Told,
) -> Built:
    release = release_of(trt.__version__)
    builder = trt.Builder(log.logger)
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH) if release.explicit_batch else 0
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, log.logger)
    told.progress(f"{onnx.stem}: reading the graph", None)
    if not parser.parse_from_file(str(onnx)):
        errors = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise EngineFault(
            f"{onnx}: TensorRT {trt.__version__} can't read it: {'; '.join(errors) or log.reason('no reason given')}"
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    if release.precision_flags and precision is not Precision.FP32:
        config.set_flag(getattr(trt.BuilderFlag, precision.name))
        _store_in(trt, network, precision)
    for shapes in profiles:
        if config.add_optimization_profile(_profile(builder, shapes)) < 0:
            raise EngineFault(f"{onnx}: TensorRT refused the profile {dict(shapes)}: {log.reason('no reason given')}")
    if not release.shared_profiles:
        config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)
    _use_timings(config, timings)
    if release.progress:
        config.progress_monitor = _monitor(trt, onnx.stem, told.progress)
    told.progress(f"{onnx.stem}: building for {precision.value}", None)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _GaveUp(log.reason("no reason given"))
    return Built(bytes(plan), bytes(config.get_timing_cache().serialize()))


def _store_in(trt: Any, network: Any, precision: Precision) -> None:
    """Keys and values go in and out as they are kept: half the memory, and no conversion of the cache in each frame.
    Patches go in as a kernel writes them, float16 or float32."""
    kept = {Precision.FP16: trt.float16, Precision.BF16: getattr(trt, "bfloat16", None)}[precision]
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    tensors += [network.get_output(i) for i in range(network.num_outputs)]
    for tensor in tensors:
        if tensor.name.startswith(("keys_", "values_")) or (tensor.name == "patches" and precision is Precision.FP16):
            tensor.dtype = kept
            tensor.allowed_formats = 1 << int(trt.TensorFormat.LINEAR)


def _profile(builder: Any, shapes: Shapes) -> Any:
    profile = builder.create_optimization_profile()
    for name, shape in shapes.items():
        profile.set_shape(name, shape, shape, shape)
    return profile


def _use_timings(config: Any, timings: bytes) -> None:
    """Kernels that were timed before need not be timed again. A cache that TensorRT doesn't take is left aside."""
    cache = config.create_timing_cache(timings)
    if not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _monitor(trt: Any, graph: str, progress: Progress) -> Any:
    """Phases nest; what is shown is how far the outermost has come. Exceptions in these calls would be swallowed."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.outermost: tuple[str, int] | None = None

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase:
                self.outermost = phase_name, max(num_steps, 1)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if self.outermost and phase_name == self.outermost[0]:
                progress(f"{graph}: {phase_name}", min(1.0, (step + 1) / self.outermost[1]))
            return True

        def phase_finish(self, phase_name: str) -> None:
            pass

    return Monitor()


@contextmanager
def _beating(told: Told) -> Iterator[None]:
    """The build holds this thread for minutes (and lets go of the interpreter), so another says that all is well."""
    done = threading.Event()

    def beat() -> None:
        told.beat()
        while not done.wait(told.every_s):
            told.beat()

    thread = threading.Thread(target=beat, name="engine-build", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
