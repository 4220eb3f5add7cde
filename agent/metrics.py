"""What a Prometheus server can read of a running agent. Base units; the labels are those that each metric names."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Protocol
from weakref import WeakMethod

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from agent.coherence.profile import Profile
from agent.coherence.quality import Flicker, TextConsistency
from agent.power.sensors import Reading

_FRAME_SECONDS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.033, 0.066, 0.133, 0.266, 0.5, 1, 2, 5)
_LATENCY_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_STAGE_POWERS = range(-4, 13, 2)
"""Bounds of a stage's buckets: powers of two in milliseconds, 62.5 µs to 4 s."""


class GpuMemory(Protocol):
    """Bytes of one part."""

    @property
    def allocated(self) -> int: ...

    @property
    def reserved(self) -> int: ...

    @property
    def peak(self) -> int: ...


class Metrics:
    """The agent's counters and gauges in a registry of their own. Every method is cheap and safe from any thread."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        info = Gauge(
            "stillwatch_build_info", "Always 1; the labels say what runs.", ["version", "python", "machine"], registry=r
        )
        info.labels(version, platform.python_version(), platform.machine()).set(1)
        self._frames = Counter(
            "stillwatch_frames",
            "Frames by outcome: the mode in which one was handled, or dropped: overwritten before it was.",
            ["camera", "outcome"],
            registry=r,
        )
        self._dropped: dict[str, int] = {}
        self._up = Gauge("stillwatch_camera_up", "1 while a camera gives frames.", ["camera"], registry=r)
        self._patches = Counter(
            "stillwatch_patches", "Patches of handled frames: reencoded or reused.", ["camera", "kind"], registry=r
        )
        self._frame_seconds = Histogram(
            "stillwatch_frame_seconds", "Time spent on one frame.", ["camera"], buckets=_FRAME_SECONDS, registry=r
        )
        self._measured = _Measured()
        r.register(self._measured)
        ProcessCollector(registry=r)
        self._last_frame = Gauge(
            "stillwatch_last_frame_timestamp_seconds", "When the last frame was captured.", ["camera"], registry=r
        )
        self._fidelity = Gauge(
            "stillwatch_fidelity_ratio", "Estimated cosine with full encodes of late.", ["camera"], registry=r
        )
        self._coherence = Gauge(
            "stillwatch_coherence_ratio", "Correlation of the last two frames, -1 to 1.", ["camera"], registry=r
        )
        self._ghosts = Gauge(
            "stillwatch_ghosts", "Tokens so far whose blended features kept what was gone.", ["camera"], registry=r
        )
        self._flicker = Gauge(
            "stillwatch_flicker_ratio", "Share of tokens whose blended features flicker.", ["camera"], registry=r
        )
        self._flicker_hz = Gauge(
            "stillwatch_flicker_hertz",
            "Median frequency of the tokens that flicker, 0 for none.",
            ["camera"],
            registry=r,
        )
        self._anomaly = Gauge("stillwatch_anomaly_score_ratio", "Anomaly score now, 0 to 1.", ["camera"], registry=r)
        self._events = Counter(
            "stillwatch_events", "Events accepted, by kind and type.", ["camera", "kind", "type"], registry=r
        )
        self._latency = Histogram(
            "stillwatch_event_latency_seconds",
            "From the capture of a frame to its event in the outbox.",
            ["camera", "kind"],
            buckets=_LATENCY_SECONDS,
            registry=r,
        )
        self._requests = Counter(
            "stillwatch_describer_requests", "Requests to the vision server, by outcome.", ["outcome"], registry=r
        )
        self._request_seconds = Histogram(
            "stillwatch_describer_request_seconds",
            "Time of a request to the vision server.",
            buckets=_LATENCY_SECONDS,
            registry=r,
        )
        self._breaker_open = Gauge(
            "stillwatch_describer_breaker_open", "1 while the vision server fails and is left alone.", registry=r
        )
        self._watts = Gauge("stillwatch_power_watts", "Power by rail; `board` is all of it.", ["rail"], registry=r)
        self._celsius = Gauge("stillwatch_temperature_celsius", "Temperature by zone.", ["zone"], registry=r)
        self._power_step = Gauge(
            "stillwatch_power_step", "How much less is done to stay within power and heat; 0 = nothing.", registry=r
        )
        self._throttled = Counter(
            "stillwatch_throttle_seconds", "Time for which firmware held something back.", ["cause"], registry=r
        )
        self._over_current = Gauge(
            "stillwatch_over_current_events", "Over-current events since power-on, by cause.", ["cause"], registry=r
        )
        self._outbox = Gauge("stillwatch_outbox_depth", "Messages that wait for the broker.", registry=r)
        self._connected = Gauge("stillwatch_mqtt_connected", "1 while the broker has accepted us.", registry=r)
        self._connections = Counter("stillwatch_mqtt_connections", "Connections made to the broker.", registry=r)
        self._connected_before = 0
        self._memory_limit = Gauge(
            "stillwatch_memory_limit_bytes", "What the agent may take before it sheds, 0 = no limit.", registry=r
        )
        self._shed = Gauge("stillwatch_memory_step", "How much is shed to stay within it; 0 = nothing.", registry=r)

    def watch_stages(self, camera: str, profile: Profile) -> None:
        """Tell where this camera's time goes, read when somebody asks."""
        self._measured.profiles[camera] = profile

    def watch_gpu(self, owner: str, held: Callable[[], Mapping[str, GpuMemory]]) -> None:
        """Memory on the GPU by part: of a camera's image operations, or of an engine that cameras share. held: a method
        of what lives as long as it does elsewhere."""
        self._measured.gpu[owner] = WeakMethod(held)

    def watch_memory(self, camera: str, sizes: Callable[[], Mapping[str, int]]) -> None:
        """Tell the bytes by part of a camera, read when somebody asks. camera: empty for what all of them share."""
        self._measured.memory[camera] = sizes

    def watch_text(self, camera: str, said: TextConsistency) -> None:
        """Tell how steady a camera's descriptions are, read when somebody asks."""
        self._measured.said[camera] = said

    def forget(self, camera: str) -> None:
        """A camera that is no longer configured: its gauges would stand still for ever. Counters stay."""
        for held in (self._measured.profiles, self._measured.memory, self._measured.said, self._measured.gpu):
            held.pop(camera, None)
        for gauge in (
            self._up,
            self._last_frame,
            self._fidelity,
            self._coherence,
            self._ghosts,
            self._flicker,
            self._flicker_hz,
            self._anomaly,
        ):
            with suppress(KeyError):  # never set
                gauge.remove(camera)

    def watch_loops(self, late: Callable[[], Mapping[str, bool]]) -> None:
        """Tell which loops are late, read when somebody asks."""
        self._measured.loops = late

    def watch_config(self, version: Callable[[], int], rollbacks: Callable[[], int]) -> None:
        """Tell which remote configuration is in force, 0 = none, and how many were taken back, read when somebody
        asks."""
        self._measured.version, self._measured.rollbacks = version, rollbacks

    def watch_outbox(self, oldest: Callable[[], float | None], lost: Callable[[], Mapping[str, int]]) -> None:
        """Tell of events, read when somebody asks. oldest: when the oldest that waits was accepted, seconds since 1970;
        lost: what will never be delivered, by cause."""
        self._measured.oldest, self._measured.lost = oldest, lost

    def frame(
        self,
        camera: str,
        mode: str,
        encoded: int,
        tokens: int,
        stages_ms: Mapping[str, float],
        captured_s: float,
    ) -> None:
        self._frames.labels(camera, mode).inc()
        self._patches.labels(camera, "reencoded").inc(encoded)
        self._patches.labels(camera, "reused").inc(max(0, tokens - encoded))
        self._frame_seconds.labels(camera).observe(sum(stages_ms.values()) / 1e3)
        self._last_frame.labels(camera).set(captured_s)

    def state(self, camera: str, up: bool, dropped: int, anomaly: float | None) -> None:
        """dropped: frames so far; less than before means that another camera has taken this name."""
        before = self._dropped.get(camera, 0)
        self._dropped[camera] = dropped
        self._frames.labels(camera, "dropped").inc(dropped - before if dropped >= before else dropped)
        self._up.labels(camera).set(up)
        if anomaly is not None:
            self._anomaly.labels(camera).set(anomaly)

    def quality(
        self, camera: str, fidelity: float | None, coherence: float | None, ghosts: int, flicker: Flicker | None
    ) -> None:
        """fidelity, coherence: None where they are not known. ghosts: all so far. flicker: of the last seconds."""
        if fidelity is not None:
            self._fidelity.labels(camera).set(fidelity)
        if coherence is not None:
            self._coherence.labels(camera).set(coherence)
        self._ghosts.labels(camera).set(ghosts)
        if flicker is not None:
            self._flicker.labels(camera).set(flicker.share)
            self._flicker_hz.labels(camera).set(flicker.median_hz or 0.0)

    def event(self, camera: str, kind: str, step: str, latency_s: float | None) -> None:
        """latency_s: negative for recorded video read faster than its own time, which is no latency."""
        self._events.labels(camera, kind, step).inc()
        if latency_s is not None and latency_s >= 0:
            self._latency.labels(camera, kind).observe(latency_s)

    def describer_request(self, outcome: str, seconds: float) -> None:
        """outcome: answered, failed or abandoned."""
        self._requests.labels(outcome).inc()
        self._request_seconds.observe(seconds)

    def describer_breaker(self, is_open: bool) -> None:
        self._breaker_open.set(is_open)

    def power(self, reading: Reading, step: int, elapsed_s: float) -> None:
        """elapsed_s: since the reading before."""
        for rail in reading.rails:
            self._watts.labels(rail.name).set(rail.watts)
        if reading.watts is not None:
            self._watts.labels("board").set(reading.watts)
        for zone in reading.zones:
            self._celsius.labels(zone.name).set(zone.celsius)
        for cause in reading.throttled:
            self._throttled.labels(cause).inc(elapsed_s)
        for cause, count in reading.over_current.items():
            self._over_current.labels(cause).set(count)
        self._power_step.set(step)

    def broker(self, connected: bool, waiting: int, connections: int) -> None:
        """connections: made so far, of this link."""
        self._connected.set(connected)
        self._connections.inc(max(0, connections - self._connected_before))
        self._connected_before = connections
        self._outbox.set(waiting)

    def memory(self, limit: int | None, step: int) -> None:
        """limit: bytes, None = none. step: of what is shed."""
        self._memory_limit.set(limit or 0)
        self._shed.set(step)


class _Measured(Collector):
    """What is kept elsewhere and turned into metrics when somebody asks, so that no frame pays for it twice."""

    def __init__(self) -> None:
        self.profiles: dict[str, Profile] = {}
        self.memory: dict[str, Callable[[], Mapping[str, int]]] = {}
        self.gpu: dict[str, WeakMethod[Callable[[], Mapping[str, GpuMemory]]]] = {}
        self.said: dict[str, TextConsistency] = {}
        self.loops: Callable[[], Mapping[str, bool]] = dict
        self.oldest: Callable[[], float | None] = _nothing
        self.lost: Callable[[], Mapping[str, int]] = dict
        self.version: Callable[[], int] = int
        self.rollbacks: Callable[[], int] = int

    def collect(self) -> Iterator[Metric]:
        times = HistogramMetricFamily(
            "stillwatch_stage_seconds", "Time of a frame by stage.", labels=["camera", "stage"]
        )
        bounds = [str(2.0**power / 1e3) for power in _STAGE_POWERS]
        for camera, profile in self.profiles.copy().items():
            for stage, histogram in profile.histograms().items():
                counts = [*histogram.up_to(_STAGE_POWERS), histogram.times().count]
                buckets = [*zip([*bounds, "+Inf"], map(float, counts), strict=True)]
                times.add_metric([camera, stage], buckets, histogram.sum_ms / 1e3)
        yield times
        memory = GaugeMetricFamily(
            "stillwatch_memory_bytes", "Memory that arrays take, by part.", labels=["camera", "part"]
        )
        for camera, sizes in self.memory.copy().items():
            for part, size in sizes().items():
                memory.add_metric([camera, part], size)
        yield memory
        gpu = GaugeMetricFamily(
            "stillwatch_gpu_memory_bytes", "Memory that the GPU works in.", labels=["owner", "part", "kind"]
        )
        for owner, method in self.gpu.copy().items():
            held = method()
            for part, bytes_of in (held() if held is not None else {}).items():
                for kind in ("allocated", "reserved", "peak"):
                    gpu.add_metric([owner, part, kind], getattr(bytes_of, kind))
        yield gpu
        yield from self._texts()
        late = GaugeMetricFamily("stillwatch_loop_late", "1 while a loop does not go on.", labels=["loop"])
        for loop, is_late in self.loops().items():
            late.add_metric([loop], is_late)
        yield late
        help_text = "Version of the remote configuration in force, 0 = none."
        yield GaugeMetricFamily("stillwatch_config_version", help_text, value=self.version())
        help_text = "Configurations that were taken back."
        yield CounterMetricFamily("stillwatch_rollback", help_text, value=self.rollbacks())
        oldest = GaugeMetricFamily(
            "stillwatch_outbox_oldest_timestamp_seconds",
            "When the oldest event that waits was accepted.",
        )
        if (accepted_s := self.oldest()) is not None:
            oldest.add_metric([], accepted_s)
        yield oldest
        lost = CounterMetricFamily("stillwatch_events_lost", "Events that will never be delivered.", labels=["cause"])
        for cause, count in self.lost().items():
            lost.add_metric([cause], count)
        yield lost

    def _texts(self) -> Iterator[Metric]:
        labels = ["camera"]
        steady = GaugeMetricFamily(
            "stillwatch_text_consistency_ratio", "Likeness of what is said and was said a second ago.", labels=labels
        )
        changes = CounterMetricFamily("stillwatch_text_changes", "Descriptions that replaced another.", labels=labels)
        returns = CounterMetricFamily(
            "stillwatch_text_returns",
            "Changes that were soon taken back; the rate is the flicker in Hz.",
            labels=labels,
        )
        for camera, said in self.said.copy().items():
            report = said.report
            if report.consistency is not None:
                steady.add_metric([camera], report.consistency)
            changes.add_metric([camera], report.changes)
            returns.add_metric([camera], report.returns)
        yield from (steady, changes, returns)


def _nothing() -> None: ...
