"""A real systemd manager in a container on the host's own /usr (systemd-nspawn), with the service as installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
SYSTEM_PYTHON = "/usr/bin/python3"

LAUNCHER = f"""#!{SYSTEM_PYTHON}
import sys
sys.path[:0] = ["/opt/stillwatch/source", "/opt/stillwatch/source/tests", "/opt/stillwatch/packages"]
sys.argv.insert(1, "/var/lib/stillwatch/hang")
import service_driver
service_driver.main()
"""


def why_not() -> str | None:
    """Why no manager can be run here, None when it can be tried."""
    if os.geteuid() != 0:
        return "a systemd manager in a container needs root"
    for tool in ("systemd-nspawn", "nsenter"):
        if shutil.which(tool) is None:
            return f"there is no {tool}"
    try:
        version = subprocess.run([SYSTEM_PYTHON, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True)
    except OSError:
        return f"there is no {SYSTEM_PYTHON}"
    if version.stdout.decode().strip() != str(sys.version_info[:2]):
        return f"{SYSTEM_PYTHON} is not the Python of the packages here"
    return None


class Machine:
    """A booted container. leader: its first process."""

    def __init__(self, leader: int) -> None:
        self.leader = leader

    def run(self, *command: str, check: bool = True) -> str:
        """Output of a command inside."""
        inside = ["nsenter", "-t", str(self.leader), "-a", *command]
        done = subprocess.run(inside, capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def show(self, name: str) -> str:
        """A property of the service."""
        return self.run("systemctl", "show", "stillwatch", "-p", name, "--value").strip()

    def journal(self, *matches: str) -> str:
        return self.run("journalctl", "-o", "cat", "--no-pager", *(matches or ("-u", "stillwatch")), check=False)


@contextmanager
def booted(folder: Path, files: Mapping[str, str]) -> Iterator[Machine]:
    """The container with these files (path → text) besides the product; powered off at the end. Raises RuntimeError
    when it does not come up."""
    launcher = folder / "launcher"
    launcher.write_text(LAUNCHER)
    launcher.chmod(0o755)
    packages = next(path for path in map(Path, sys.path) if (path / "onnxruntime").is_dir())
    binds = {
        ROOT: "/opt/stillwatch/source",
        packages: "/opt/stillwatch/packages",
        launcher: "/opt/stillwatch/venv/bin/stillwatch",
        ROOT / "systemd/stillwatch.service": "/etc/systemd/system/stillwatch.service",
        ROOT / "systemd/stillwatch.sysusers.conf": "/etc/sysusers.d/stillwatch.conf",
        ROOT / "systemd/stillwatch.tmpfiles.conf": "/etc/tmpfiles.d/stillwatch.conf",
    }
    for number, (path, text) in enumerate(files.items()):
        (folder / f"file{number}").write_text(text)
        binds[folder / f"file{number}"] = path
    name = f"stillwatch-test-{os.getpid()}"
    command = ["systemd-nspawn", "-q", "-D", "/", "--volatile=yes", "--boot", "--register=no", "--keep-unit"]
    command += [f"--machine={name}", "--private-network", "--console=pipe"]
    command += [f"--bind-ro={source}:{target}" for source, target in binds.items()]
    with (folder / "console").open("wb") as console:
        outer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=console, stderr=console)
    try:
        leader = _until(lambda: outer.poll() is not None or _answers(_child(outer.pid)), 90)
        if outer.poll() is not None or not leader:
            said = (folder / "console").read_text(errors="replace")[-500:]
            raise RuntimeError(said or "its manager does not answer")
        yield Machine(leader)
    finally:
        leader = _child(outer.pid)
        if leader:
            os.kill(leader, signal.SIGRTMIN + 4)  # power off
        try:
            outer.wait(20)
        except subprocess.TimeoutExpired:
            outer.kill()
            outer.wait()


def _answers(leader: int) -> int:
    """The process, when it is a manager that takes orders; what nspawn has at first is another one, soon gone."""
    if not leader:
        return 0
    said = Machine(leader).run("systemctl", "is-system-running", check=False).strip()
    return leader if said in ("starting", "running", "degraded") else 0


def _child(pid: int) -> int:
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    return int(found[0]) if found else 0


def _until(found: Callable[[], int | bool], seconds: float) -> int:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := found():
            return int(value)
        time.sleep(0.1)
    return 0
