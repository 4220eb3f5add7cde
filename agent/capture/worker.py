"""The thread that keeps one camera coming: opens it, reads it, and reconnects when it is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from enum import Enum

from agent.capture.backoff import Backoff
from agent.capture.clock import Clock, SystemClock
from agent.capture.ring import Ring
from agent.capture.source import FrameSource
from agent.service.progress import Beat
from config.errors import EndOfStream, SourceError


class Phase(str, Enum):
    """Where a worker stands. `ENDED` and `FAILED` are final."""

    CONNECTING = "connecting"
    STREAMING = "streaming"
    RECONNECTING = "reconnecting"
    ENDED = "ended"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class CaptureState:
    """What the worker tells. reason: why it is reconnecting or has failed or ended. retry_s: seconds to the next
    attempt."""

    phase: Phase
    reason: str | None = None
    retry_s: float | None = None


class CaptureWorker:
    """Reads one source into a ring until it ends, fails or is stopped; then the ring is closed.

    Lost (SourceError, or no frame for `stall_s`), it is opened again after `retry.next()` seconds, for ever; with
    `retry=None` the first loss is final. Anything else than SourceError is final: a corrupt file doesn't get better.
    The back-off starts anew once a connection has lasted `stable_s`. The first frame of each connection is a
    discontinuity, and `Frame.index` goes on where the connection before it stopped.

    lossless: wait for room in the ring instead of dropping; None = wait unless the source is live.
    on_state is called from the worker's thread, and never after `stop` was called. beat: the thread's heart; it is idle
    between two attempts, and while a reader that is slower holds it up.
    """

    def __init__(
        self,
        open_source: Callable[[], FrameSource],
        ring: Ring,
        *,
        retry: Backoff | None,
        on_state: Callable[[CaptureState], None],
        stall_s: float = 10.0,
        stable_s: float = 10.0,
        lossless: bool | None = None,
        clock: Clock | None = None,
        name: str = "capture",
        beat: Beat | None = None,
    ) -> None:
        self._open_source = open_source
        self._ring = ring
        self._retry = retry
        self._on_state = on_state
        self._stall_s = stall_s
        self._stable_s = stable_s
        self._lossless = lossless
        self._clock = clock or SystemClock()
        self._beat = beat or Beat(name)
        self._stopping = threading.Event()
        self._source: FrameSource | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._next_index = 0
        self._damaged_before = 0
        self.error: Exception | None = None
        """Why it failed, for the exit status of the command; None unless the phase is `FAILED`."""

    @property
    def frames(self) -> int:
        """Frames that the source delivered, over all connections; those that its fps limit skipped are counted too."""
        return self._next_index

    @property
    def damaged(self) -> int:
        """Packets and pictures that could not be decoded, over all connections."""
        return self._damaged_before + int(getattr(self._source, "damaged", 0))

    def start(self) -> None:
        """Start the thread. Once only."""
        self._thread.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        """Stop, close the ring, and wait for the thread at most `timeout_s`; one that is still opening a source that
        doesn't answer ends by itself. A second call does nothing."""
        self._stopping.set()
        self._ring.close()
        source = self._source
        if source is not None:
            source.close()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self._keep_reading()
        except EndOfStream as end:
            self._tell(CaptureState(Phase.ENDED, str(end)))
        except Exception as error:
            if not self._stopping.is_set():
                self.error = error
                self._tell(CaptureState(Phase.FAILED, str(error)))
        finally:
            self._ring.close()
            self._beat.idle()

    def _keep_reading(self) -> None:
        if self._retry is None:
            self._connect()
            return
        self._retry.next()  # the immediate attempt is the one that follows
        while not self._stopping.is_set():
            try:
                self._connect()
                return
            except EndOfStream:
                raise
            except SourceError as lost:
                reason = str(lost)
            delay_s = self._retry.next()
            self._tell(CaptureState(Phase.RECONNECTING, reason, delay_s))
            self._beat.idle()
            self._clock.wait(self._stopping, delay_s)

    def _connect(self) -> None:
        """Open the source and read it until it raises or we are stopped."""
        self._beat.beat()
        self._tell(CaptureState(Phase.CONNECTING))
        try:
            with closing(self._open_source()) as source:
                self._source = source
                self._read(source)
        finally:
            self._damaged_before, self._source = self.damaged, None

    def _read(self, source: FrameSource) -> None:
        block = not source.info.live if self._lossless is None else self._lossless
        first_index = self._next_index
        since_ns = None
        while not self._stopping.is_set():
            self._beat.beat()
            frame = source.read(self._stall_s)
            now_ns = self._clock.monotonic_ns()
            if since_ns is None:
                since_ns = now_ns
                self._tell(CaptureState(Phase.STREAMING))
                frame = replace(frame, discontinuity=True)
            if first_index:
                frame = replace(frame, index=first_index + frame.index)
            self._next_index = frame.index + 1
            if block:
                self._beat.idle()
            self._ring.put(frame, block=block)
            if self._retry is not None and now_ns - since_ns >= self._stable_s * 1e9:
                self._retry.reset()

    def _tell(self, state: CaptureState) -> None:
        if not self._stopping.is_set():
            self._on_state(state)
