"""An OpenAI-compatible vision server that can be told to misbehave, as a process of its own.

    python tests/vision_server.py [CERTIFICATE]        prints its port, ends with its stdin; https with a certificate

`POST /script` sets what it does, a list of modes taken one a request, the last one for ever; `GET /seen` tells the
requests so far. Everything else is what such servers have: `GET /v1/models`, `POST /v1/chat/completions`.
"""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

MODEL = "test-vlm"
HANG_S = 60.0


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = ["good"]
        self.seen: list[dict[str, Any]] = []
        self.busy = self.most_busy = 0
        self.lock = threading.Lock()

    def next_mode(self, request: dict[str, Any]) -> tuple[str, int]:
        with self.lock:
            self.seen.append(request)
            return (self.script.pop(0) if len(self.script) > 1 else self.script[0]), len(self.seen)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients go as they like


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/seen":
            self._json(200, {"seen": self.server.seen, "most_busy": self.server.most_busy})
        elif self.path == "/v1/models":
            self._json(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        else:
            self._json(404, {"error": {"message": f"no such path: {self.path}"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/script":
            self.server.script[:] = body
            self._json(200, {})
        elif self.path != "/v1/chat/completions":
            self._json(404, {"detail": "Not Found"})
        else:
            mode, number = self.server.next_mode({"body": body, "authorization": self.headers.get("Authorization")})
            with self.server.lock:
                self.server.busy += 1
                self.server.most_busy = max(self.server.most_busy, self.server.busy)
            try:
                MODES[mode](self, f"Words {number} from the server, café ☕.")
            finally:
                with self.server.lock:
                    self.server.busy -= 1

    def good(self, text: str) -> None:
        self._begin()
        self._send(b": keep-alive\r\n\r\n")
        self._event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": None}}]})
        for word in text.split(" "):
            self._event(delta(word if word == "Words" else " " + word))
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self._event({"choices": [], "usage": {"total_tokens": 9}})
        self._send(b"data: [DONE]\n\n")
        self._end()

    def slow(self, text: str) -> None:
        time.sleep(0.3)
        self.good(text)

    def drip(self, text: str) -> None:
        """One byte a chunk, and no [DONE]."""
        self._begin()
        for part in (delta(text), {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}):
            for byte in b"data: " + json.dumps(part, ensure_ascii=False).encode() + b"\r\n\r\n":
                self._send(bytes([byte]))
        self._end()

    def cut(self, text: str) -> None:
        self._begin()
        self._event(delta("Half a"))
        self.close_connection = True

    def unfinished(self, text: str) -> None:
        """Ends in good order, and too early."""
        self._begin()
        self._event(delta("Half a"))
        self._end()

    def breaks(self, text: str) -> None:
        self._begin()
        self._event({"error": {"message": "CUDA out of memory", "code": 500}})
        self._end()

    def long(self, text: str) -> None:
        self._begin()
        self._event({"choices": [{"index": 0, "delta": {"content": "On and"}, "finish_reason": "length"}]})
        self._send(b"data: [DONE]\n\n")
        self._end()

    def empty(self, text: str) -> None:
        self._begin()
        self._event({"choices": [{"index": 0, "delta": {"reasoning_content": "Hmm."}, "finish_reason": "stop"}]})
        self._end()

    def plain(self, text: str) -> None:
        message = {"role": "assistant", "content": text}
        self._json(200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    def page(self, text: str) -> None:
        self._reply(200, b"<html><body>Welcome to nginx!</body></html>", {"Content-Type": "text/html"})

    def garbage(self, text: str) -> None:
        self.connection.sendall(bytes(range(256)))
        self.close_connection = True

    def hang(self, text: str) -> None:
        time.sleep(HANG_S)

    def hang_midway(self, text: str) -> None:
        self._begin()
        self._event(delta("Half a"))
        time.sleep(HANG_S)

    def busy(self, text: str) -> None:
        self._reply(429, b'{"error": {"message": "too many requests"}}', {"Retry-After": "1"})

    def away(self, text: str) -> None:
        self._reply(503, b"loading model", {"Retry-After": "300"})

    def broken(self, text: str) -> None:
        self._json(500, {"error": {"message": "internal\nerror"}})

    def denied(self, text: str) -> None:
        self._json(401, {"error": {"message": f"invalid key {self.headers.get('Authorization')}"}})

    def moved(self, text: str) -> None:
        self._reply(307, b"", {"Location": "http://127.0.0.1:9/v1/chat/completions"})

    def _begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _event(self, data: dict[str, Any]) -> None:
        self._send(b"data: " + json.dumps(data).encode() + b"\n\n")

    def _send(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _end(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def _json(self, status: int, value: object) -> None:
        self._reply(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def delta(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


MODES: dict[str, Callable[[Handler, str], None]] = {
    name: getattr(Handler, name)
    for name in (
        *("good", "slow", "drip", "cut", "unfinished", "breaks", "long", "empty", "plain", "page", "garbage", "hang"),
        *("hang_midway", "busy", "away", "broken", "denied", "moved"),
    )
}


@dataclass(frozen=True)
class Asked:
    """A request as the server saw it. pictures: uint8 RGB."""

    body: dict[str, Any]
    authorization: str | None

    @property
    def text(self) -> str:
        return str(self.body["messages"][0]["content"][-1]["text"])

    @property
    def pictures(self) -> list[NDArray[np.uint8]]:
        parts = [part["image_url"]["url"] for part in self.body["messages"][0]["content"][:-1]]
        assert all(url.startswith("data:image/jpeg;base64,") for url in parts)
        found = [cv2.imdecode(np.frombuffer(base64.b64decode(url[23:]), np.uint8), cv2.IMREAD_COLOR) for url in parts]
        return [np.asarray(picture, np.uint8)[:, :, ::-1] for picture in found]


@dataclass(frozen=True)
class Remote:
    """The server, seen from a test."""

    port: int
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def does(self, script: Sequence[str] | str) -> None:
        self._call("/script", [script] if isinstance(script, str) else list(script))

    @property
    def asked(self) -> list[Asked]:
        return [Asked(**request) for request in self._call("/seen")["seen"]]

    @property
    def most_busy(self) -> int:
        return int(self._call("/seen")["most_busy"])

    def _call(self, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", data, timeout=30) as answer:
            return json.load(answer)


@contextmanager
def vision_server(certificate: Path | None = None) -> Iterator[Remote]:
    """certificate: PEM with its key; then it speaks https only, and the control paths can't be reached."""
    command = [sys.executable, __file__, *([] if certificate is None else [str(certificate)])]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Remote(int(process.stdout.readline()), process)
    finally:
        process.kill()
        process.communicate()


def main() -> None:
    server = Server()
    if len(sys.argv) > 1:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[1])
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)  # noqa: T201
    with suppress(KeyboardInterrupt):
        sys.stdin.read()


if __name__ == "__main__":
    main()
