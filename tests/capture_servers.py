"""Cameras on loopback that can be told to misbehave: an RTSP server and an HTTP server."""

from __future__ import annotations

import base64
import re
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import av
import numpy as np
from numpy.typing import NDArray

Script = Callable[[int, Callable[[bytes], None], threading.Event], None]
"""What a server sends to its n-th client (0-based): (n, send, stopped). Returning closes the connection."""


@contextmanager
def http_camera(script: Script, content_type: str = "video/mp2t") -> Iterator[str]:
    """An HTTP server whose every GET is answered by the script; gives its URL."""
    stopped = threading.Event()
    clients = iter(range(1_000_000))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.end_headers()
            with suppress(OSError):  # the client has gone
                script(next(clients), lambda data: _write(self.wfile, data), stopped)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with _serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler), stopped) as port:
        yield f"http://127.0.0.1:{port}/stream"


@contextmanager
def rtsp_camera(script: Script, *, credentials: str | None = None) -> Iterator[str]:
    """An RTSP server (H.264, RTP interleaved in TCP, RFC 2326) that sends what the script gives it as RTP packets;
    gives its URL. With credentials (`user:password`) it asks for Basic authentication."""
    stopped = threading.Event()
    clients = iter(range(1_000_000))
    expected = "Basic " + base64.b64encode((credentials or "").encode()).decode()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):  # the client has gone
                while (request := self._request()) and self._answer(*request):
                    pass

        def _request(self) -> tuple[str, str] | None:
            lines = []
            while (line := self.rfile.readline().decode()) not in ("\r\n", ""):
                lines.append(line)
            return (lines[0].split()[0], "".join(lines)) if lines else None

        def _answer(self, method: str, request: str) -> bool:
            sequence = re.search(r"(?im)^CSeq:\s*(\d+)", request)
            headers = [f"CSeq: {sequence[1] if sequence else 0}", "Session: 1"]
            body = ""
            status = "200 OK"
            if credentials and expected not in request:
                status = "401 Unauthorized"
                headers.append('WWW-Authenticate: Basic realm="camera"')
            elif method == "OPTIONS":
                headers.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
            elif method == "DESCRIBE":
                body = (
                    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
                    "a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track1\r\n"
                )
                headers.append("Content-Type: application/sdp")
            elif method == "SETUP":
                headers.append("Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
            headers.append(f"Content-Length: {len(body)}")
            _write(self.wfile, ("\r\n".join([f"RTSP/1.0 {status}", *headers]) + "\r\n\r\n" + body).encode())
            if method == "PLAY" and status == "200 OK":
                script(next(clients), self._send, stopped)
                return False
            return method != "TEARDOWN"

        def _send(self, packet: bytes) -> None:
            _write(self.wfile, b"$\x00" + len(packet).to_bytes(2, "big") + packet)

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    with _serving(server, stopped) as port:
        yield f"rtsp://127.0.0.1:{port}/stream"


def rtp_packets(images: list[NDArray[np.uint8]], *, fps: int = 25) -> list[list[bytes]]:
    """H.264 in RTP (RFC 6184): the packets of each picture."""
    packets: list[bytes] = []

    class Wire:
        def write(self, data: bytes) -> int:
            packets.append(bytes(data))
            return len(data)

    pictures = []
    with av.open(Wire(), "w", format="rtp", options={"packetsize": "1200", "rtpflags": "skip_rtcp"}) as output:
        stream = output.add_stream("libx264", rate=fps)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = 5
        stream.options = {"preset": "ultrafast", "tune": "zerolatency"}
        for image in images:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            pictures.append(packets.copy())
            packets.clear()
    return pictures


def closed_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def silent_listener() -> Iterator[int]:
    """A port that accepts connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


@contextmanager
def _serving(server: socketserver.TCPServer, stopped: threading.Event) -> Iterator[int]:
    server.daemon_threads = True  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        stopped.set()
        server.shutdown()
        server.socket.close()
        thread.join()


def _write(file: object, data: bytes) -> None:
    file.write(data)  # type: ignore[attr-defined]
    file.flush()  # type: ignore[attr-defined]
