"""One camera as the daemon runs it: a capture worker, a ring, and the frame loop behind it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from weakref import WeakMethod

import structlog

from agent.capacity.turns import Turns
from agent.capture.backoff import Backoff
from agent.capture.frame import Frame
from agent.capture.ring import Ring
from agent.capture.source import FrameSource
from agent.capture.worker import CaptureState, CaptureWorker, Phase
from agent.evidence.ring import PacketRing
from agent.power.policy import Rung
from agent.reporting import CameraReporter
from agent.rules.attendant import Attendant
from agent.service.progress import Progress
from agent.watching import CameraWatch

log = structlog.get_logger()


class Camera:
    """Runs from `start` until its source ends or fails for good, or `stop`. The frame loop has a thread of its own.

    One that takes another's place begins in two steps: `connect` reads the source while the other still looks at its
    frames, `begin` looks at frames and tells of them.

    retry: connect again when the source is lost. packets: what the source fills besides. on_available: called when
    frames begin and when they stop. recall: called once, before the first frame is looked at. enabled: may be set from
    any thread; frames of a camera that is not enabled are dropped. progress: told that both threads go on. turns: of
    all cameras that share the machine.
    """

    def __init__(
        self,
        name: str,
        open_source: Callable[[], FrameSource],
        watch: CameraWatch,
        reporter: CameraReporter,
        *,
        attendant: Attendant,
        retry: bool,
        packets: PacketRing | None = None,
        on_available: Callable[[str, bool], None] = lambda _camera, _available: None,
        recall: Callable[[], None] = lambda: None,
        progress: Progress | None = None,
        turns: Turns | None = None,
    ) -> None:
        self.name = name
        self._progress = progress or Progress()
        self._beats = self._progress.loop(f"capture {name}"), self._progress.loop(f"frames {name}")
        self.watch = watch
        self.reporter = reporter
        self.attendant = attendant
        """Its rules, and what it saw of late."""
        self.enabled = True
        self._on_available, self._recall = on_available, recall
        self._begun = False
        self._why = "the source has ended"
        self._capture = CaptureState(Phase.CONNECTING)
        self._share, self._due = 1.0, 0.0
        self._skipped: Frame | None = None
        self._latest: tuple[float, Frame] | None = None
        self._ring, self._packets = Ring(3), packets
        self._worker = CaptureWorker(
            open_source,
            self._ring,
            retry=Backoff() if retry else None,
            on_state=_weakly(self._note),
            name=f"capture {name}",
            beat=self._beats[0],
        )
        self._thread = threading.Thread(target=self._run, name=f"frames {name}", daemon=True)
        self._seat = (turns or Turns()).seat()
        self._rate = (time.monotonic(), 0)

    @property
    def holdings(self) -> dict[str, object]:
        """What holds this camera's memory, by part, for `agent.coherence.memory.by_part`."""
        held = self.watch.holdings
        return {**held, "frames": (held["frames"], self._ring), "clips": self._packets}

    @property
    def done(self) -> bool:
        """The source has ended or failed, and its last frame was handled."""
        return self._thread.ident is not None and not self._thread.is_alive()

    @property
    def error(self) -> Exception | None:
        """Why the source failed for good."""
        return self._worker.error

    @property
    def dropped(self) -> int:
        """Frames that were overwritten before they were handled."""
        return self._ring.dropped

    @property
    def capture(self) -> CaptureState:
        """Where the connection to the source stands."""
        return self._capture

    @property
    def delivered(self) -> int:
        """Frames that the source gave."""
        return self._worker.frames

    def start(self) -> None:
        self.begin()
        self.connect()

    def connect(self) -> None:
        """Read the source, and keep the last frames until `begin`."""
        self._worker.start()

    def begin(self) -> None:
        """Look at frames, and tell of them and of how the source is."""
        self._recall()
        self._begun = True
        if self._capture.phase is not Phase.STREAMING:
            self._on_available(self.name, False)
        self._tell(self._capture)
        self._thread.start()

    def follow(self, old: Camera) -> None:
        """Take over from a camera that has stopped what people have told it, and what it said last."""
        self.enabled = old.enabled
        self.reporter.follow(old.reporter)

    def stop(self, timeout_s: float = 1.0, reason: str = "the agent has stopped watching") -> None:
        """End capture and frame loop; frames that wait in the ring are still handled, as far as time allows. reason: in
        what is open and ends with it."""
        self._why = reason
        until = time.monotonic() + timeout_s
        self._worker.stop(timeout_s)
        if self._thread.ident is not None:
            self._thread.join(max(0.0, until - time.monotonic()))
        elif not self._begun:
            self._begun = True
            self.watch.close(self._why)
        for beat in self._beats:
            self._progress.retire(beat)

    def relieve(self, rung: Rung, reason: str) -> None:
        """Do no more than this from now on; from any thread."""
        self._share = rung.frames
        self.watch.limit(rung.detail)
        self.reporter.spare_words(rung.words_every_s, reason)

    def shed(self, share: float) -> None:
        """Keep only this share of packets for clips and of moments for questions; from any thread."""
        self.attendant.moments.shed(share)
        if self._packets is not None:
            self._packets.shed(share)

    def latest(self) -> tuple[float, Frame] | None:
        """The newest frame and how many seconds ago it came; None before the first."""
        if self._latest is None:
            return None
        came_s, frame = self._latest
        return time.monotonic() - came_s, frame

    def fps(self) -> float:
        """Frames handled a second since the last call."""
        now, frames = time.monotonic(), self.watch.frames
        (then, before), self._rate = self._rate, (now, frames)
        return (frames - before) / max(1e-3, now - then)

    def _run(self) -> None:
        watching, beat = False, self._beats[1]
        while not self._ring.drained:
            beat.idle()
            frame = self._ring.get(0.0)
            if frame is None:
                self._seat.leave()
                frame = self._ring.get()
            beat.beat()
            if frame is None:
                continue
            self._latest = time.monotonic(), frame
            if (frame := self._thinned(frame)) is None:
                continue
            enabled = self.enabled  # read once: it may be switched while a frame is looked at
            if enabled:
                self._seat.take()
                self.watch.see(frame)
            elif watching:
                self.watch.pause()
            watching = enabled
        self._seat.leave()
        self.watch.close(self._why)
        beat.idle()

    def _thinned(self, frame: Frame) -> Frame | None:
        """The frame if it is its turn, with what the skipped ones led up to."""
        if self._skipped is not None:
            frame, self._skipped = frame.following(self._skipped), None
        self._due = min(1.0, self._due + self._share)
        if self._due < 1:
            self._skipped = frame
            return None
        self._due -= 1
        return frame

    def _note(self, state: CaptureState) -> None:
        """On the capture thread."""
        self._capture = state
        if self._begun:
            self._tell(state)

    def _tell(self, state: CaptureState) -> None:
        if state.phase is Phase.STREAMING:
            log.info("camera gives frames", camera=self.name)
            self.reporter.back()
            self._on_available(self.name, True)
        elif state.phase is Phase.RECONNECTING:
            log.warning(
                "camera lost, trying again", camera=self.name, reason=state.reason, retry_s=round(state.retry_s or 0, 1)
            )
            self.reporter.lost(f"{state.reason}; trying again")
            self._on_available(self.name, False)
        elif state.phase is Phase.ENDED:
            log.info("camera ended", camera=self.name, reason=state.reason)
            self._on_available(self.name, False)
        elif state.phase is Phase.FAILED:
            log.error("camera failed", camera=self.name, reason=state.reason)
            self.reporter.lost(str(state.reason))
            self._on_available(self.name, False)


def _weakly(note: Callable[[CaptureState], None]) -> Callable[[CaptureState], None]:
    """Calls a method without keeping its object alive: a camera that was replaced is gone, with the memory of its model
    caches, when the last of its threads ends, and not when the collector of cycles comes by."""
    method = WeakMethod(note)

    def call(state: CaptureState) -> None:
        alive = method()
        if alive is not None:
            alive(state)

    return call
