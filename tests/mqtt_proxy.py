"""A way to a broker that can be cut, slowed down, or be that of an older broker."""

from __future__ import annotations

import heapq
import itertools
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

_WRONG_VERSION = bytes([0x20, 0x02, 0x00, 0x01])
"""CONNACK of a broker that knows 3.1.1 only: unacceptable protocol version."""


class Proxy:
    """Listens on `port` and passes everything on to a broker on this machine, from one thread.

    delay_s: for which each piece is held up, in both directions. refuse: new connections are ended at once. only_311: a
    CONNECT of MQTT 5 is answered like a broker answers that does not know it ("silent": not at all).
    """

    def __init__(self, to: int, *, only_311: bool = False, silent: bool = False) -> None:
        self._to = to
        self.only_311, self._silent = only_311, silent
        self.delay_s = 0.0
        self.refuse = False
        self.connections = 0
        self._selector = selectors.DefaultSelector()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._first: set[socket.socket] = set()
        self._later: list[tuple[float, int, Callable[[], None], bytes]] = []
        self._numbers = itertools.count()
        self._cut = threading.Event()
        self._stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """End all connections there are."""
        self._cut.set()

    def holds_up(self, words: bytes) -> bool:
        """Whether a piece with these bytes is on its way now."""
        return any(words in data for *_, data in list(self._later))

    def _run(self) -> None:
        while not self._stop.is_set():
            for key, _ in self._selector.select(0.01):
                assert isinstance(key.fileobj, socket.socket)
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._read(key.fileobj)
            while self._later and self._later[0][0] <= time.monotonic():
                heapq.heappop(self._later)[2]()
            if self._cut.is_set():
                self._cut.clear()
                for end in list(self._pairs):
                    self._close(end)
        for end in list(self._pairs):
            self._close(end)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        self.connections += 1
        if self.refuse:
            client.close()
            return
        try:
            broker = socket.create_connection(("127.0.0.1", self._to), timeout=1.0)
        except OSError:
            client.close()
            return
        for end, other in ((client, broker), (broker, client)):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs[end] = other
            self._selector.register(end, selectors.EVENT_READ)
        self._first.add(client)

    def _read(self, end: socket.socket) -> None:
        if end not in self._pairs:
            return
        try:
            data = end.recv(65536)
        except OSError:
            data = b""
        if end in self._first:
            self._first.discard(end)
            if self.only_311 and data[data.find(b"MQTT") + 4 : data.find(b"MQTT") + 5] == b"\x05":
                if not self._silent:
                    end.sendall(_WRONG_VERSION)
                data = b""
        other = self._pairs[end]
        act = (lambda: self._send(other, data)) if data else (lambda: self._close(end))
        heapq.heappush(self._later, (time.monotonic() + self.delay_s, next(self._numbers), act, data))

    def _send(self, end: socket.socket, data: bytes) -> None:
        if end in self._pairs:
            try:
                end.sendall(data)
            except OSError:
                self._close(end)

    def _close(self, end: socket.socket) -> None:
        other = self._pairs.pop(end, None)
        for one in (end, other):
            if one is not None:
                self._pairs.pop(one, None)
                with suppress(KeyError, ValueError):
                    self._selector.unregister(one)
                one.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._listener.close()
        self._selector.close()
