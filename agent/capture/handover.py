"""What goes between the agent and a process that captures for it: messages over a socket, pictures in shared memory.

The memory has no name (memfd), so that nothing is left behind whoever dies first, and can't shrink (sealed), so that
nobody who looks at it dies of the other. A slot has one owner at a time: the message that names it passes it to the
agent, its number passes it back. Nothing is locked between the two.

Both sides import this; it needs nothing but NumPy, so that a camera is back the sooner.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import select
import socket
import struct
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

MESSAGE_BYTES = 1 << 16
SLOTS = 10
"""Frames in shared memory: a ring's three, those that the frame loop compares, and some to write into."""
_SPARE = 3
"""Slots that the process always has to write into: with fewer left, frames are copied out and given back at once."""
_REST_WITHIN_S = 5.0
"""Of a message whose beginning has come."""
_LONGEST_HEADER = 4096


@dataclass(frozen=True, slots=True)
class Message:
    """header: what JSON can say. body: bytes of any length. handle: a descriptor, the receiver's to close."""

    header: dict[str, Any]
    body: bytes = b""
    handle: int | None = None


class Gone(Exception):
    """The other side has closed the line, or talks nonsense."""


class Line:
    """One end of a SEQPACKET socket. `send` may be called from any thread, `receive` from one."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._sending = threading.Lock()
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def send(self, header: dict[str, Any], body: bytes = b"", handle: int | None = None) -> None:
        """Waits for room. Raises OSError when nobody is there."""
        text = json.dumps({**header, "body": len(body)} if body else header).encode() + b"\n"
        room = MESSAGE_BYTES - len(text)
        handles = [] if handle is None else [handle]
        with self._sending:
            socket.send_fds(self.socket, [text + body[:room]], handles)
            for start in range(room, len(body), MESSAGE_BYTES):
                self.socket.send(body[start : start + MESSAGE_BYTES])

    def receive(self, timeout_s: float) -> Message | None:
        """The next message; None when none came in time. Raises Gone."""
        first = self._packet(timeout_s)
        if first is None:
            return None
        data, handle = first
        try:
            text, _, part = data.partition(b"\n")
            header = json.loads(text)
            parts, missing = [part], int(header.pop("body", 0)) - len(part)
            until = time.monotonic() + _REST_WITHIN_S
            while missing > 0:
                more = self._packet(until - time.monotonic())
                if more is None:
                    raise Gone("stopped in the middle of a message")
                parts.append(more[0])
                missing -= len(more[0])
            return Message(header, b"".join(parts), handle)
        except BaseException as error:
            if handle is not None:
                os.close(handle)
            if isinstance(error, (ValueError, AttributeError, TypeError)):
                raise Gone("talks nonsense") from None
            raise

    def _packet(self, timeout_s: float) -> tuple[bytes, int | None] | None:
        if not self._poll.poll(max(0.0, timeout_s) * 1e3):
            return None
        try:
            data, handles, _, _ = socket.recv_fds(self.socket, MESSAGE_BYTES, 1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            data, handles = b"", []
        if not data:
            raise Gone("closed")
        return data, handles[0] if handles else None


def shortened(text: str) -> str:
    """As much of a sentence as a header holds."""
    return text if len(text) < _LONGEST_HEADER else text[: _LONGEST_HEADER - 1] + "…"


class SlotWriter:
    """The side that captures. announce: called with the size, the number of the first slot and a descriptor of the
    memory, before the first slot of a new size is claimed."""

    def __init__(self, count: int, announce: Callable[[tuple[int, int], int, int], None]) -> None:
        self._count, self._announce = count, announce
        self._free: deque[int] = deque()
        self._changed = threading.Condition()
        self._size: tuple[int, int] | None = None
        self._first = -count
        self._slots: Image

    def wait(self, size: tuple[int, int] | None, timeout_s: float | None = None) -> bool:
        """Until a slot can be claimed; for a picture of another size there always is one."""
        with self._changed:
            return self._changed.wait_for(
                lambda: bool(self._free) or self._size is None or self._size != size, timeout_s
            )

    def claim(self, size: tuple[int, int]) -> tuple[int, Image] | None:
        """A slot for a picture of (width, height): its number, and where to write, uint8 (h, w, 3); None when all are
        taken."""
        if size != self._size:
            self._make(size)
        with self._changed:
            if not self._free:
                return None
            slot = self._free.pop()  # the one used last: its memory is warm, and the rest may never be needed
        return slot, self._slots[slot - self._first]

    def returned(self, numbers: bytes) -> None:
        """Slots that came back, as `SlotReader` sends them. Those of memory that is no longer used are let go."""
        with self._changed:
            self._free.extend(number for (number,) in struct.iter_unpack("<I", numbers) if number >= self._first)
            self._changed.notify_all()

    def _make(self, size: tuple[int, int]) -> None:
        width, height = size
        nbytes = width * height * 3 * self._count
        handle = os.memfd_create("stillwatch-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(handle, nbytes)
            fcntl.fcntl(handle, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            memory = mmap.mmap(handle, nbytes)
            with self._changed:
                self._first += self._count
                self._size = size
                self._free = deque(range(self._first, self._first + self._count))
            self._slots = np.frombuffer(memory, np.uint8).reshape(self._count, height, width, 3)
            self._announce(size, self._first, handle)
        finally:
            os.close(handle)


class SlotReader:
    """The side that looks at pictures. copied: those that were copied a second time, because many were held."""

    def __init__(self, connection: socket.socket, count: int) -> None:
        self._connection, self._count = connection, count
        self._held: set[int] = set()  # changed by whatever thread lets go of a frame
        self._back: deque[int] = deque()
        self._first = 0
        self._slots: Image = np.empty((0, 0, 0, 3), np.uint8)
        self.copied = 0

    def open(self, size: tuple[int, int], first: int, handle: int) -> None:
        """Slots from `first` on lie here. Raises Gone for memory that could go away."""
        width, height = size
        nbytes = width * height * 3 * self._count
        sealed = fcntl.fcntl(handle, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
        if not sealed or nbytes <= 0 or os.fstat(handle).st_size < nbytes:
            raise Gone("hands over memory that is not there")
        memory = mmap.mmap(handle, nbytes)
        self._first = first
        self._slots = np.frombuffer(memory, np.uint8).reshape(self._count, height, width, 3)

    def take(self, number: int) -> Image:
        """The picture in a slot, which is given back when that and all views of it are gone. Raises Gone."""
        place = number - self._first
        if not 0 <= place < len(self._slots):
            raise Gone("names a picture that is not there")
        slot = self._slots[place]
        if len(self._held) >= self._count - _SPARE:
            image: Image = slot.copy()
            self.copied += 1
            self.give_back(number)
            return image
        lease = _Lease(slot)
        self._held.add(number)
        weakref.finalize(lease, self._returned, number).atexit = False
        return np.asarray(lease)

    def give_back(self, *numbers: int) -> None:
        """From any thread, a collector of garbage included: nothing here waits or locks. What finds no room goes with
        the next."""
        self._back.extend(numbers)
        going: list[int] = []
        with suppress(IndexError):
            while True:
                going.append(self._back.popleft())
        if not going:
            return
        try:
            self._connection.send(_packed(going), socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._back.extend(going)
        except OSError:
            pass  # nobody wants them any more

    def _returned(self, number: int) -> None:
        self._held.discard(number)
        self.give_back(number)


class _Lease:
    """Stands under a frame's image; when that and its views are gone, the slot goes back."""

    def __init__(self, slot: Image) -> None:
        self._slot = slot
        self.__array_interface__ = slot.__array_interface__


def _packed(numbers: Iterable[int]) -> bytes:
    return b"".join(struct.pack("<I", number) for number in numbers)
