"""A camera that dies in every way it knows, again and again."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from random import Random

_HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n"


class CrashingCamera:
    """An HTTP server on loopback whose every answer ends badly: at once, in the middle, in garbage, or in silence."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.2)
        self.answers = 0
        self._thread = threading.Thread(target=self._run, name="crashing camera", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/stream"

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            with suppress(OSError):
                client, _ = self._listener.accept()
                with client:
                    client.settimeout(1.0)
                    self._misbehave(client)

    def _misbehave(self, client: socket.socket) -> None:
        self.answers += 1
        way = self._random.randrange(4)
        if way == 0:
            return
        client.recv(4096)
        if way == 1:
            client.sendall(_HEAD[: self._random.randrange(len(_HEAD))])
        elif way == 2:
            client.sendall(_HEAD + self._random.randbytes(200_000))
        else:
            client.sendall(_HEAD)
            until = time.monotonic() + self._random.uniform(1, 12)
            while time.monotonic() < until and not self._stopping.wait(0.2):
                pass
