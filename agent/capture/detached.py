"""A source on a thread of its own, for everything that may block."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from types import TracebackType

from agent.capture.frame import Frame
from agent.capture.ring import Ring
from agent.capture.source import FrameSource, SourceInfo
from config.errors import SourceError

_LINGER_S = 0.5


class DetachedSource:
    """Opens and reads another source on a daemon thread, so that no caller waits longer than it said, and `close` is
    prompt.

    Why a thread: a read inside libav can't be interrupted from outside (closing the container under it frees memory in
    use), V4L2 waits in the kernel without a time-out, and so does the lookup of a host name. A thread that is stuck
    is left alone; it closes its source itself once the call comes back, and nothing of what it brings is used any
    more.

    A live source never waits for its reader: `read` gives the oldest of the newest three frames. Raises what `open`
    raises, or SourceError when that takes longer than `timeout_s`.
    """

    def __init__(self, open_source: Callable[[], FrameSource], *, name: str, timeout_s: float) -> None:
        self._open_source = open_source
        self._name = name
        self._timeout_s = timeout_s
        self._handover = Ring(3)
        self._opened = threading.Event()
        self._closing = threading.Event()
        self._source: FrameSource | None = None
        self._info: SourceInfo | None = None
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"read {name}", daemon=True)
        self._thread.start()
        # A second more than the source itself waits: its own message says more than ours.
        if not self._opened.wait(timeout_s + 1):
            self._closing.set()
            raise SourceError(f"{name}: no answer within {timeout_s:g} s")
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    @property
    def info(self) -> SourceInfo:
        if self._info is None:
            raise SourceError(f"{self._name}: not open")
        return self._info

    @property
    def damaged(self) -> int:
        """Packets and pictures that the source left out."""
        return int(getattr(self._source, "damaged", 0))

    def read(self, timeout_s: float = 5.0) -> Frame:
        """The next frame. Raises SourceError when none came in `timeout_s` or after `close`, else what the source
        raises."""
        frame = self._handover.get(timeout_s)
        if frame is not None:
            return frame
        if self._failure is not None and self._handover.drained:
            raise self._failure
        if self._closing.is_set():
            raise SourceError(f"{self._name}: closed")
        raise SourceError(f"{self._name}: no frame within {timeout_s:g} s")

    def close(self) -> None:
        """Let go of the source; returns within half a second whatever it is doing. A second call does nothing."""
        self._closing.set()
        self._handover.close()
        self._thread.join(_LINGER_S)
        self._failure = None  # its traceback points back at us

    def __enter__(self) -> DetachedSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            with closing(self._open_source()) as source:
                self._source, self._info = source, source.info
                self._opened.set()
                block = not source.info.live
                while not self._closing.is_set():
                    self._handover.put(source.read(self._timeout_s), block=block)
        except Exception as error:  # whatever ended the thread is raised again where the frames are read
            self._failure = error
        finally:
            self._opened.set()
            self._handover.close()
