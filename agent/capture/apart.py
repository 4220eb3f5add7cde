"""A source that is read by a process of its own (`agent.capture.child`)."""

from __future__ import annotations

import os
import time
from datetime import datetime
from types import TracebackType
from typing import Any

import numpy as np

from agent.capture.frame import Frame
from agent.capture.handover import SLOTS, Gone, Message, SlotReader
from agent.capture.process import CaptureProcess
from agent.capture.source import SourceInfo
from agent.capture.tap import PacketTap
from agent.evidence.packets import Packet, Stream
from config.errors import ConfigError, CorruptInput, EndOfStream, SourceError, StillwatchError
from vpi_ops.codec import CodecMotion

_BEGUN_WITHIN_S = 14.0
"""For the process to be there, on a busy machine; it takes a third of a second of processor time."""
_GRACE_S = 2.0
"""Beyond what the source itself waits: its own message says more than ours."""
_PATIENCE_S = 0.5
_KINDS = {kind.__name__: kind for kind in (ConfigError, CorruptInput, SourceError)}


class ApartSource:
    """Gives the frames that the source would give here, at the same times; its packets go to `tap`.

    order: arguments of `agent.capture.opening.open_directly`. `read` belongs to the thread that made it, `close` to
    any. Raises what the source raises; SourceError when the process dies, is silent, or talks nonsense.
    """

    def __init__(self, order: dict[str, Any], *, tap: PacketTap | None, slots: int = SLOTS) -> None:
        self._name, self._source_id, self._tap = str(order["name"]), str(order["source_id"]), tap
        self.damaged = 0
        self._process = CaptureProcess(
            "agent.capture.child",
            self._name,
            {**order, "slots": slots, "packets": tap is not None},
            patience_s=_PATIENCE_S,
        )
        self._slots = SlotReader(self._process.connection, slots)
        timeout_s = float(order["timeout_s"])
        try:
            self._await("ready", _BEGUN_WITHIN_S, f"the capture process did not begin within {_BEGUN_WITHIN_S:g} s")
            found = self._await("info", timeout_s + _GRACE_S, f"no answer within {timeout_s:g} s")
            width, height, fps, frames, live = found["info"]
        except BaseException:
            self.close()
            raise
        self._info = SourceInfo(width, height, fps, frames, live)

    @property
    def info(self) -> SourceInfo:
        """As it was opened."""
        return self._info

    @property
    def pid(self) -> int:
        """Of the process that captures."""
        return self._process.pid

    def read(self, timeout_s: float = 5.0) -> Frame:
        """The next frame. Raises EndOfStream, SourceError, CorruptInput."""
        message = self._receive("slot", timeout_s, f"no frame within {timeout_s:g} s")
        try:
            return self._frame(message)
        except (Gone, KeyError, TypeError, ValueError) as error:
            raise self._nonsense(error) from None

    def close(self) -> None:
        """End the process, by force if need be. Frames that were read stay as they are. A second call does nothing."""
        self._process.close()

    def __enter__(self) -> ApartSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _await(self, key: str, within_s: float, else_: str) -> dict[str, Any]:
        return self._receive(key, within_s, else_).header

    def _receive(self, key: str, within_s: float, else_: str) -> Message:
        """The next message with this key; what comes before it finds its way. Raises how the source ended."""
        until = time.monotonic() + within_s
        while True:
            message = self._process.receive(until - time.monotonic())
            if message is not None and key in message.header:
                return message
            if message is None or time.monotonic() > until:
                raise SourceError(f"{self._name}: {else_}")
            try:
                self._take(message)
            except (Gone, KeyError, TypeError, ValueError) as error:
                raise self._nonsense(error) from None

    def _take(self, message: Message) -> None:
        header, body = message.header, message.body
        if message.handle is not None:
            try:
                self._slots.open(tuple(header["memory"]), header["first"], message.handle)
            finally:
                os.close(message.handle)
        elif "end" in header:
            raise EndOfStream(header["end"])
        elif "error" in header:
            raise _KINDS.get(header["kind"], StillwatchError)(header["error"])
        elif self._tap is None:
            return
        elif "packet" in header:
            dts_s, pts_s, key, stamp = header["packet"]
            self._tap.add(Packet(body, dts_s, pts_s, key, stamp))
        elif "stream" in header:
            suffix, length, headed = header["stream"]
            self._tap.begin(Stream(body[:length], suffix, body[length:] if headed else None))
        elif "shown" in header:
            self._tap.shown(*header["shown"])

    def _frame(self, message: Message) -> Frame:
        header = message.header
        self.damaged = header["damaged"]
        return Frame(
            self._slots.take(header["slot"]),
            self._source_id,
            header["index"],
            header["ns"],
            datetime.fromisoformat(header["utc"]),
            header["media"],
            header["cut"],
            None if header["motion"] is None else _motion(header["motion"], message.body),
        )

    def _nonsense(self, error: Exception) -> SourceError:
        return SourceError(f"{self._name}: the capture process talks nonsense: {error!r:.200}")


def _motion(told: Any, body: bytes) -> CodecMotion:
    (width, height), counts = told
    words = np.frombuffer(body, np.int32).reshape(sum(counts), -1)
    return CodecMotion((width, height), tuple(np.split(words, np.cumsum(counts)[:-1])))
