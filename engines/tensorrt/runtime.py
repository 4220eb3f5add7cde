"""The engines of one model, shared by all cameras: opened where they fit, else built, verified and installed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from config.errors import EngineFault
from engines.manifest import Model
from engines.tensorrt import enginefile
from engines.tensorrt.building import Log, Told, Watch, build
from engines.tensorrt.device import Gpu
from engines.tensorrt.enginefile import Found, Identity
from engines.tensorrt.execution import Engine, Execution
from engines.tensorrt.memory import Memory
from engines.tensorrt.purpose import ENCODER, Purpose
from engines.tensorrt.recipe import Precision, precisions
from engines.tensorrt.releases import release_of


class TensorRtRuntime:
    """Raises EngineFault, with every reason in words, when there is no engine that can be used.

    purpose: which part of the model. precision: None = what suits the device, and FP32 should its outputs stray.
    folder: of engine files; the model's own place when None. may_build: without, only engines that are there are
    opened. again: build even what is there, and what was refused before. watch: is told while an engine is built.

    precision_ (attribute `precision`), notes: what was chosen, and what happened on the way, a sentence each.
    """

    def __init__(
        self,
        model: Model,
        gpu: Gpu,
        *,
        purpose: Purpose = ENCODER,
        precision: str | None = None,
        folder: Path | None = None,
        may_build: bool = True,
        again: bool = False,
        watch: Watch | None = None,
    ) -> None:
        try:
            import tensorrt as trt
        except ImportError as error:
            raise EngineFault(
                f"TensorRT can't be loaded ({error}): sudo apt install python3-libnvinfer, in an environment made with "
                "--system-site-packages"
            ) from error
        self._trt: Any = trt
        self.model, self.gpu, self.purpose = model, gpu, purpose
        self.version = str(trt.__version__)
        self.release = release_of(self.version)
        self.folder = folder or enginefile.folder_for(model.manifest.name)
        self.rows, self.slots = purpose.rows(model.manifest), purpose.slots(model.manifest)
        self.memory = Memory(gpu)
        self.notes: tuple[str, ...] = ()
        self.checks: tuple[dict[str, Any], ...] = ()
        self.engines: dict[str, Engine] = {}
        self._plan_bytes = 0
        self._log = Log(trt)
        self._told = Told(watch or Watch())
        self._may_build, self._again = may_build, again
        self.precision = Precision.FP32
        if missing := purpose.missing(model.manifest):
            raise EngineFault(
                f"{model.folder}: lacks the graphs {', '.join(missing)}; import the model again, or write them with "
                f"`python -m engines.export {model.folder}`"
            )
        refused = []
        for candidate in precisions(precision, self.release, gpu.capability):
            self.precision = candidate
            with gpu.active():
                reason = self._open()
            if not reason:
                return
            refused.append(f"{candidate.value}: {reason}")
            self.notes += (refused[-1],)
        raise EngineFault(
            f"TensorRT {self.version} has no {purpose.name} engine for {model.manifest.name}: {'; '.join(refused)}"
        )

    def recorded(self, execution: Execution) -> bool:
        """Have it run as one CUDA graph from now on; False, with a note, where that can't be."""
        try:
            execution.record(self.gpu)
        except EngineFault as fault:
            self.note(f"CUDA graphs can't be used, each kernel is queued by itself: {fault}")
            return False
        return True

    def note(self, sentence: str) -> None:
        """Add to the notes, once."""
        if sentence not in self.notes:
            self.notes += (sentence,)

    def _open(self) -> str:
        """Engines of the present precision; the reason why there are none, else empty."""
        found = {} if self._again else {graph: self._look(graph) for graph in self.purpose.graphs}
        if refused := [one.refused for one in found.values() if one.refused]:
            return f"{refused[0]} (found when it was built; `stillwatch model build --again` tries anew)"
        plans = {graph: one.plan for graph, one in found.items() if one.plan is not None}
        reasons = [one.reason for one in found.values() if one.reason]
        if len(plans) == len(self.purpose.graphs):
            try:
                self._load(plans)
                self.checks = found[self.purpose.graphs[0]].checks
                return ""
            except EngineFault as fault:
                reasons = [str(fault)]
        if not self._may_build:
            return f"{'; '.join(reasons)}; `stillwatch model build {self.model.manifest.name}` builds it"
        self.notes += tuple(f"{reason}: built anew" for reason in reasons if reason != "not built yet")
        try:
            return self._build()
        except EngineFault as fault:
            return str(fault)

    def _build(self) -> str:
        """Build, verify and install; the reason of a refusal, else empty. Raises EngineFault."""
        with enginefile.locked(self.folder):
            if not self._again and all(self._look(graph).plan for graph in self.purpose.graphs):
                return self._open()  # somebody else has built them meanwhile
            timings = self.folder / f"timings-{self.version}-{self._capability}.cache"
            measured = timings.read_bytes() if timings.is_file() else b""
            plans = {}
            for graph in self.purpose.graphs:
                built = build(
                    self._trt,
                    self.model.graph(graph),
                    self.precision,
                    self.purpose.profiles(self.model.manifest, graph),
                    log=self._log,
                    free_bytes=self.gpu.free_bytes(),
                    timings=measured,
                    told=self._told,
                )
                plans[graph], measured = built.plan, built.timings
            enginefile.write(timings, measured)
            self._told.progress("comparing with ONNX Runtime", None)
            self._load(plans)
            refused = self._verify()
            for graph, plan in plans.items():
                enginefile.install(self._file(graph), self._identity(graph), plan, checks=self.checks, refused=refused)
        for fault in self._told.faults:
            self.note(fault)
        return refused

    def _verify(self) -> str:
        """Compare with ONNX Runtime; what strays, else empty."""
        checks = self.purpose.compare(self)
        self.checks = tuple(asdict(check) for check in checks)
        strayed = [str(check) for check in checks if not check.passed]
        if strayed:
            self._load({})
        return f"outputs stray from ONNX Runtime's: {'; '.join(strayed)}" if strayed else ""

    def _load(self, plans: dict[str, bytes]) -> None:
        """Have these engines in the place of those that were there."""
        before = self.gpu.free_bytes()
        self.engines = {}
        self.engines = {graph: Engine(self._trt, plan, self.release, self._log) for graph, plan in plans.items()}
        size = sum(map(len, plans.values()))
        self.memory.count("weights", size - self._plan_bytes, before - self.gpu.free_bytes())
        self._plan_bytes = size

    def _look(self, graph: str) -> Found:
        return enginefile.look(self._file(graph), self._identity(graph))

    def _file(self, graph: str) -> Path:
        return self.folder / f"{graph}-{self.precision.value}.engine"

    def _identity(self, graph: str) -> Identity:
        return Identity(
            tensorrt=self.version,
            capability=self._capability,
            l4t=enginefile.l4t(),
            graph=enginefile.hash_of(self.model, graph),
            precision=self.precision.value,
            rows=self.rows if self.purpose.varies(self.model.manifest, graph) else (),
            slots=self.slots,
        )

    @property
    def _capability(self) -> str:
        return ".".join(map(str, self.gpu.capability))
