"""A broker of our own on loopback, for the demo and for tests: mosquitto as a child process."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from config.errors import BrokerError

MISSING = "mosquitto is not installed; on Debian or Ubuntu: sudo apt-get install -y mosquitto mosquitto-clients"
_UP_WITHIN_S = 10.0


def find_mosquitto() -> Path | None:
    """The broker's binary; distributions put it where a user's PATH does not look."""
    found = shutil.which(
        "mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    )
    return Path(found) if found else None


class LocalBroker:
    """A mosquitto on a loopback port, with its data in a folder of its own that is removed at the end.

    port: 0 = a free one. options: further lines of `mosquitto.conf`; `{dir}` in them is the folder. Without
    `allow_anonymous` among them everyone on this machine is let in.
    """

    def __init__(self, *, port: int = 0, options: Sequence[str] = ()) -> None:
        """Does not start it. Raises BrokerError with the command that installs mosquitto when there is none."""
        binary = find_mosquitto()
        if binary is None:
            raise BrokerError(MISSING)
        self._binary = binary
        self.folder = Path(tempfile.mkdtemp(prefix="stillwatch-broker-"))
        self.port = port or _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        lines = [
            f"listener {self.port} 127.0.0.1",
            "persistence true",
            f"persistence_location {self.folder}/",
            "max_queued_messages 100000",
            "set_tcp_nodelay true",
            *(line.replace("{dir}", str(self.folder)) for line in options),
        ]
        if not any(line.startswith("allow_anonymous") for line in lines):
            lines.append("allow_anonymous true")
        (self.folder / "mosquitto.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """Of the running broker."""
        return self._process.pid if self._process is not None else None

    def start(self) -> LocalBroker:
        """Start and wait until it takes connections. Raises BrokerError with its own words when it does not."""
        _give_to_mosquitto(self.folder)
        log_path = self.folder / "mosquitto.log"
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._binary), "-c", str(self.folder / "mosquitto.conf")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _UP_WITHIN_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
            except OSError:
                time.sleep(0.01)
            else:
                return self
        self.stop()
        words = log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise BrokerError(f"mosquitto does not start on port {self.port}: {'; '.join(words[-2:]) or 'it says nothing'}")

    def stop(self) -> None:
        """End it with SIGTERM; its data stay until `remove`. A second call does nothing."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        """Stop it and delete its data."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> LocalBroker:
        try:
            return self.start()
        except BaseException:
            self.remove()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _give_to_mosquitto(folder: Path) -> None:
    """Started as root it becomes the user `mosquitto`, who must be able to read and write its folder."""
    if os.geteuid() != 0:
        return
    try:
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, user="mosquitto")
    except LookupError:
        return  # built without that user: it stays root
