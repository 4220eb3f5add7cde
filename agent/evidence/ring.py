"""The last seconds of one camera as packets, and the clips that are being taken from them.

Packets are a hundredth of the size of pictures, and nothing is decoded or encoded for a clip. The ring begins at a key
picture and holds what `pre_s` asks for, and two key-picture intervals at least, within `max_bytes`; what it had to let
go shortens the pre-roll, and the footage says so.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from agent.evidence.packets import Packet, Stream

_MARGIN_S = 3.0
"""Held beyond the pre-roll: a frame is judged a little after its packet came."""
_SHORTER_S = 0.5
"""A pre-roll is worth a word when so much of it is missing."""
_NEARLY_S = 0.001
"""Times are sums of others: a picture so little beyond an edge is on it."""
_MAX_TAKES = 4
_FRAMES = 512


@dataclass(frozen=True, slots=True)
class ClipSpan:
    """Seconds of a clip before and after the frame that an alert was decided on."""

    pre_s: float = 5.0
    post_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Footage:
    """Packets of one clip; the first is a key picture. at_s: how far into the clip the picture is that it was taken
    for. notes: what is missing from it, as sentences."""

    stream: Stream
    packets: tuple[Packet, ...]
    at_s: float
    notes: tuple[str, ...] = ()


class NoFootage(Exception):
    """There is nothing to make a clip of; the message says why."""


Taken = Callable[[Footage | NoFootage], None]


@dataclass(frozen=True, slots=True)
class _Wanted:
    at_ns: int
    pre_s: float
    post_s: float
    done: Taken


@dataclass(slots=True)
class _Take:
    at_s: float
    pre_s: float
    post_s: float
    done: Taken
    packets: list[Packet] = field(default_factory=list)
    size: int = 0


class PacketRing:
    """Filled by the connection that is current, from its thread; takes are asked for from any thread.

    max_bytes: of the packets held, and of each take beyond them.
    """

    def __init__(self, *, pre_s: float, max_bytes: int = 32_000_000) -> None:
        self._keep_s = pre_s + _MARGIN_S
        self._max_bytes = max_bytes
        self._share = 1.0
        self._lock = threading.Lock()
        self._owner: object | None = None
        self._stream: Stream | None = None
        self._packets: deque[Packet] = deque()
        self._keys: deque[Packet] = deque()  # the key pictures in it
        self._size = 0
        self._truncated = False
        self._frames: deque[tuple[int, float]] = deque(maxlen=_FRAMES)  # when each was captured, and when it is shown
        self._takes: list[_Take] = []
        self._early: list[_Wanted] = []

    @property
    def fed(self) -> bool:
        """Whether the current connection has brought packets."""
        return self._stream is not None

    @property
    def nbytes(self) -> int:
        """Bytes held, without those of the takes."""
        return self._size

    def shed(self, share: float) -> None:
        """Hold at most this share of `max_bytes` from now on; 0 = nothing, and no clips any more."""
        with self._lock:
            self._share = share
            if self._packets:
                self._trim()

    def connect(self, owner: object) -> None:
        """A new connection: what the one before brought can't be joined to it. Packets of any other owner are passed
        over from now on; takes that are open end here."""
        with self._lock:
            ended = self._end("no more pictures came") if self._owner is not None else []
            self._owner = owner
            self._stream, self._truncated = None, False
            self._frames.clear()
            self._drop_all()
        _hand_over(ended)

    def begin(self, owner: object, stream: Stream) -> None:
        """The packets that follow belong to this stream."""
        with self._lock:
            if owner is not self._owner:
                return
            ended = self._end("the picture changed its size") if self._stream is not None else []
            self._stream = stream
            self._drop_all()
        _hand_over(ended)

    def add(self, owner: object, packet: Packet) -> None:
        """The next packet. Before the first key picture there is nothing to keep."""
        with self._lock:
            if owner is not self._owner or self._stream is None:
                return
            if packet.key:
                self._keys.append(packet)
            if self._keys:
                self._packets.append(packet)
                self._size += len(packet.data)
                self._trim()
            finished = self._feed(packet)
        _hand_over(finished)

    def shown(self, owner: object, stamp: int | None, monotonic_ns: int) -> None:
        """The picture with this stamp became the frame of that moment."""
        with self._lock:
            if owner is not self._owner or not self._packets:
                return
            found = next((p for p in islice(reversed(self._packets), 64) if p.stamp == stamp), self._packets[-1])
            self._frames.append((monotonic_ns, found.pts_s))
            early, self._early = self._early, []
            for wanted in early:
                self._place(wanted)

    def end(self, owner: object) -> None:
        """The connection brings nothing more."""
        with self._lock:
            ended = self._end("no more pictures came") if owner is self._owner else []
        _hand_over(ended)

    def take(self, at_ns: int, pre_s: float, post_s: float, done: Taken) -> None:
        """Have the packets from `pre_s` before the frame of that moment (monotonic ns) to `post_s` after it. `done`
        gets them from the thread that brings the last of them, or from this one when there are none."""
        with self._lock:
            if self._owner is None:
                refused = NoFootage("the camera gives no packets")
            elif not self._share:
                refused = NoFootage("memory is short")
            elif len(self._takes) + len(self._early) >= _MAX_TAKES:
                refused = NoFootage(f"{_MAX_TAKES} clips of this camera are being made")
            else:
                wanted = _Wanted(at_ns, pre_s, post_s, done)
                if self._frames:
                    self._place(wanted)
                else:
                    self._early.append(wanted)
                return
        done(refused)

    def _place(self, wanted: _Wanted) -> None:
        """Network cameras deliver unevenly: the frame itself says where it is, the clocks would not."""
        captured_ns, shown_s = min(self._frames, key=lambda frame: abs(frame[0] - wanted.at_ns))
        at_s = shown_s + (wanted.at_ns - captured_ns) / 1e9
        begun = self._from(at_s - wanted.pre_s)
        self._takes.append(_Take(at_s, wanted.pre_s, wanted.post_s, wanted.done, begun))

    def _from(self, start_s: float) -> list[Packet]:
        """What is held from the last key picture on that is not after `start_s`, or from the first. Pictures shown
        before it need what came before it: they are left out."""
        if not self._keys:
            return []
        begin = next((key for key in reversed(self._keys) if key.pts_s <= start_s + _NEARLY_S), self._keys[0])
        return [packet for packet in self._packets if packet.dts_s >= begin.dts_s and packet.pts_s >= begin.pts_s]

    def _feed(self, packet: Packet) -> list[tuple[Taken, Footage | NoFootage]]:
        finished = []
        for take in list(self._takes):
            reason = None
            if packet.dts_s <= take.at_s + take.post_s + _NEARLY_S:
                if packet.pts_s >= take.packets[0].pts_s if take.packets else packet.key:
                    take.packets.append(packet)
                    take.size += len(packet.data)
                if take.size <= self._max_bytes:
                    continue
                reason = f"{self._max_bytes // 10**6} MB are enough"
            self._takes.remove(take)
            finished.append(self._finish(take, reason))
        return finished

    def _end(self, reason: str) -> list[tuple[Taken, Footage | NoFootage]]:
        takes, self._takes = self._takes, []
        early, self._early = self._early, []
        none = NoFootage("the camera gives no packets")
        return [*(self._finish(take, reason) for take in takes), *((wanted.done, none) for wanted in early)]

    def _finish(self, take: _Take, cut_short: str | None) -> tuple[Taken, Footage | NoFootage]:
        if not take.packets or self._stream is None:
            return take.done, NoFootage(cut_short or "there was no key picture to begin with")
        start_s, end_s = take.packets[0].pts_s, take.packets[-1].pts_s
        pre_s, post_s = take.at_s - start_s, max(0.0, end_s - take.at_s)
        notes = []
        if pre_s < take.pre_s - _SHORTER_S:
            reason = "the packet ring holds no more" if self._truncated else "the camera gave no picture before"
            begins = f"{pre_s:.1f} s before" if pre_s >= 0 else f"{-pre_s:.1f} s after"
            notes.append(f"the clip begins {begins}, not {take.pre_s:g} s before: {reason}")
        if cut_short is not None and post_s < take.post_s - _SHORTER_S:
            notes.append(f"the clip ends {post_s:.1f} s after, not {take.post_s:g} s: {cut_short}")
        return take.done, Footage(self._stream, tuple(take.packets), max(0.0, pre_s), tuple(notes))

    def _trim(self) -> None:
        """Let go of whole key-picture intervals: those older than asked for, as long as two remain, and as many as it
        takes to keep the limit."""
        newest_s = self._packets[-1].dts_s
        while len(self._keys) > 3 and self._keys[1].pts_s <= newest_s - self._keep_s:
            self._drop_interval()
        while self._size > self._max_bytes * self._share and self._keys:
            self._truncated = True
            self._drop_interval()

    def _drop_interval(self) -> None:
        """Without its first key picture, up to the next; an interval that is not over goes whole."""
        self._keys.popleft()
        while self._packets and not (self._keys and self._packets[0] is self._keys[0]):
            self._size -= len(self._packets.popleft().data)

    def _drop_all(self) -> None:
        self._packets.clear()
        self._keys.clear()
        self._size = 0


def _hand_over(finished: Sequence[tuple[Taken, Footage | NoFootage]]) -> None:
    """Outside the lock: whoever takes footage may ask for more."""
    for done, footage in finished:
        done(footage)
