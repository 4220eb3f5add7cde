"""A hub on loopback, as far as an import needs one: `python hub_server.py REPOSITORY LOG OPTIONS`.

REPOSITORY: the files of the one model. LOG: a JSON line for each request. OPTIONS, JSON: model: its name, `owner/tiny`
where absent; cuts: after how many bytes successive answers with weights are cut off; chunk_delay_s: pause after each
16 kB of weights; ranges: false ignores them; damage: a file that is sent with one bit wrong; token: needed for
everything; down: answer everything with this status. Prints its port.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY, LOG, OPTIONS = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
MODEL = OPTIONS.get("model", "owner/tiny")
CUTS = list(OPTIONS.get("cuts", []))


def entry(file: Path) -> dict[str, Any]:
    content = file.read_bytes()
    found = {"rfilename": str(file.relative_to(REPOSITORY)), "size": len(content)}
    if file.suffix in (".safetensors", ".bin"):
        return {
            **found,
            "blobId": "0" * 40,
            "lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)},
        }
    return {**found, "blobId": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        request = {"path": self.path, "host": self.headers["Host"].split(":")[0], "range": self.headers.get("Range")}
        request["authorization"] = self.headers.get("Authorization")
        with LOG.open("a") as log:
            log.write(json.dumps(request) + "\n")
        if "down" in OPTIONS:
            return self.send(OPTIONS["down"], b"")
        if self.path.startswith("/cdn/"):
            return self.send_weights(REPOSITORY / self.path.removeprefix("/cdn/"))
        if "token" in OPTIONS and self.headers.get("Authorization") != f"Bearer {OPTIONS['token']}":
            return self.send(401, b"")
        for revision in ("main", COMMIT):
            if self.path == f"/api/models/{MODEL}/revision/{revision}?blobs=true":
                files = [entry(file) for file in sorted(REPOSITORY.rglob("*")) if file.is_file()]
                return self.send(200, json.dumps({"id": MODEL, "sha": COMMIT, "siblings": files}).encode())
        file = REPOSITORY / self.path.removeprefix(f"/{MODEL}/resolve/{COMMIT}/")
        if not file.is_file():
            return self.send(404, b"")
        if file.suffix == ".safetensors":  # large files lie elsewhere
            return self.send(302, b"", Location=f"http://localhost:{self.server.server_port}/cdn/{file.name}")
        return self.send(200, self.content(file))

    def send_weights(self, file: Path) -> None:
        content, first = self.content(file), 0
        if (asked := self.headers.get("Range")) and OPTIONS.get("ranges", True):
            first = int(asked.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        content = content[first:][: CUTS.pop(0) if CUTS else None]
        for at in range(0, len(content), 1 << 14):
            self.wfile.write(content[at : at + (1 << 14)])
            time.sleep(OPTIONS.get("chunk_delay_s", 0))
        self.close_connection = True

    def content(self, file: Path) -> bytes:
        content = bytearray(file.read_bytes())
        if file.name == OPTIONS.get("damage"):
            content[-1] ^= 1
        return bytes(content)

    def send(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(OPTIONS.get("port", 0))), Hub)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
