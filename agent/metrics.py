"""What a Prometheus server can read of a running agent. Base units; the labels are those that each metric names."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from agent.coherence.profile import Profile
from agent.coherence.quality import Flicker, TextConsistency
from agent.power.sensors import Reading
from config.errors import ConfigError

_FRAME_SECONDS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.033, 0.066, 0.133, 0.266, 0.5, 1, 2, 5)
_LATENCY_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_STAGE_POWERS = range(-4, 13, 2)
"""Bounds of a stage's buckets: powers of two in milliseconds, 62.5 µs to 4 s."""


class Metrics:
    """The agent's counters and gauges in a registry of their own. Every method is cheap and safe from any thread."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        info = Gauge("stillwatch_info", "Always 1; the labels say what runs.", ["version", "machine"], registry=r)
        info.labels(version, platform.machine()).set(1)
        self._frames = Counter("stillwatch_frames", "Frames handled, by mode.", ["camera", "mode"], registry=r)
        self._dropped = Gauge(
            "stillwatch_frames_dropped",
            "Frames that were overwritten before they were handled.",
            ["camera"],
            registry=r,
        )
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

    def watch_stages(self, camera: str, profile: Profile) -> None:
        """Tell where this camera's time goes, read when somebody asks."""
        self._measured.profiles[camera] = profile

    def watch_memory(self, camera: str, sizes: Callable[[], Mapping[str, int]]) -> None:
        """Tell the bytes by part of a camera, read when somebody asks. camera: empty for what all of them share."""
        self._measured.memory[camera] = sizes

    def watch_text(self, camera: str, said: TextConsistency) -> None:
        """Tell how steady a camera's descriptions are, read when somebody asks."""
        self._measured.said[camera] = said

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

    def state(self, camera: str, dropped: int, anomaly: float | None) -> None:
        self._dropped.labels(camera).set(dropped)
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

    def broker(self, connected: bool, waiting: int) -> None:
        self._connected.set(connected)
        self._outbox.set(waiting)


class _Measured(Collector):
    """What is kept elsewhere and turned into metrics when somebody asks, so that no frame pays for it twice."""

    def __init__(self) -> None:
        self.profiles: dict[str, Profile] = {}
        self.memory: dict[str, Callable[[], Mapping[str, int]]] = {}
        self.said: dict[str, TextConsistency] = {}

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
        yield from self._texts()

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


class MetricsServer:
    """`http://127.0.0.1:PORT/metrics` while open; loopback only. Raises ConfigError when the port can't be had."""

    def __init__(self, metrics: Metrics, port: int) -> None:
        try:
            self._server, self._thread = start_http_server(port, addr="127.0.0.1", registry=metrics.registry)
        except OSError as error:
            raise ConfigError(f"metrics.port: can't listen on 127.0.0.1:{port}: {error.strerror}") from None
        self.port = int(self._server.server_port)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=1.0)

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
