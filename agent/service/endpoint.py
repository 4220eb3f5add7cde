"""What answers on loopback: `/metrics` for Prometheus, `/healthz` (does it go on?), `/readyz` (is it of use?).

It takes GET and HEAD, a head of 8 KiB that is there within five seconds, no body, eight requests at a time, and closes
after each answer: neither a slow nor a greedy client costs the agent anything.
"""

from __future__ import annotations

import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from types import TracebackType
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from agent.service.health import Answer, Health
from agent.service.progress import Beat
from config.errors import ConfigError

_HEAD_BYTES = 8192
_HEAD_S = 5.0
_AT_A_TIME = 8
_METHODS = ("GET", "HEAD")
_Page = Callable[[], tuple[HTTPStatus, str, bytes]]


class Endpoint:
    """`http://127.0.0.1:PORT/…` while open. Raises ConfigError when the port can't be had; 0 = any that is free.
    beat: the heart of the thread that takes requests; each is answered on one of its own."""

    def __init__(self, port: int, registry: CollectorRegistry, health: Health, beat: Beat | None = None) -> None:
        pages: dict[str, _Page] = {
            "/metrics": lambda: (HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(registry)),
            "/healthz": lambda: _json(health.alive()),
            "/readyz": lambda: _json(health.ready()),
        }
        try:
            self._server = _Server(port, pages, beat or Beat("metrics"))
        except OSError as error:
            raise ConfigError(f"metrics.port: can't listen on 127.0.0.1:{port}: {error.strerror}") from None
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=1.0)

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _json(answer: Answer) -> tuple[HTTPStatus, str, bytes]:
    status = HTTPStatus.OK if answer.well else HTTPStatus.SERVICE_UNAVAILABLE
    return status, "application/json", json.dumps(answer.document, ensure_ascii=False).encode() + b"\n"


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, pages: dict[str, _Page], beat: Beat) -> None:
        self.pages, self._beat = pages, beat
        self._room = threading.BoundedSemaphore(_AT_A_TIME)
        super().__init__(("127.0.0.1", port), _Handler)

    def serve(self) -> None:
        """Until `shutdown`."""
        self.serve_forever()
        self._beat.idle()

    def service_actions(self) -> None:
        """In every round of `serve_forever`, twice a second at least."""
        self._beat.beat()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return self._room.acquire(blocking=False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(socketserver.BaseRequestHandler):
    request: socket.socket
    server: _Server

    def handle(self) -> None:
        try:
            method, _, rest = self._head().partition(b"\r\n")[0].decode("ascii").partition(" ")
            target, _, version = rest.rpartition(" ")
        except (TimeoutError, ValueError) as error:  # of bytes that are no ASCII, too
            late = isinstance(error, TimeoutError)
            self._answer(HTTPStatus.REQUEST_TIMEOUT if late else HTTPStatus.BAD_REQUEST)
            return
        page = self.server.pages.get(target.partition("?")[0])
        if not version.startswith("HTTP/1."):
            self._answer(HTTPStatus.BAD_REQUEST)
        elif method not in _METHODS:
            self._answer(HTTPStatus.METHOD_NOT_ALLOWED, extra=f"Allow: {', '.join(_METHODS)}\r\n")
        elif page is None:
            self._answer(HTTPStatus.NOT_FOUND, body=f"there are {', '.join(self.server.pages)}\n".encode())
        else:
            self._answer(*page(), with_body=method == "GET")

    def _head(self) -> bytes:
        """Raises TimeoutError and ValueError."""
        until, head = time.monotonic() + _HEAD_S, b""
        while b"\r\n\r\n" not in head:
            self.request.settimeout(max(0.001, until - time.monotonic()))
            more = self.request.recv(_HEAD_BYTES)
            head += more
            if not more or len(head) > _HEAD_BYTES:
                raise ValueError("no head of a request")
        return head

    def _answer(
        self,
        status: HTTPStatus,
        kind: str = "text/plain",
        body: bytes = b"",
        *,
        with_body: bool = True,
        extra: str = "",
    ) -> None:
        self.request.settimeout(_HEAD_S)
        body = body or f"{status.phrase}\n".encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
            f"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n{extra}\r\n"
        )
        self.request.sendall(head.encode() + (body if with_body else b""))
