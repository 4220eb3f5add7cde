"""scripts/install-jetson in a faked root: the commands it runs are stand-ins that keep what they did in files."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts/install-jetson"
UNIT = "etc/systemd/system/stillwatch.service"
NEWER = f"{UNIT}.d/10-systemd-254.conf"
TMPFILES = "usr/lib/tmpfiles.d/stillwatch.conf"

ORIN = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n"

COMMAND = """#!/bin/sh
# One stand-in for every command; its state lies in {state}.
name=${{0##*/}}
state={state}
case "$name $*" in
    "dpkg-query "*) for package; do :; done
        grep -qx "$package" $state/packages && printf 'install ok installed'; exit ;;
    "getent passwd stillwatch") [ -e $state/user ]; exit ;;
    "systemctl --version") cat $state/systemd; exit ;;
    "systemctl is-enabled "*) [ -e $state/enabled ] && echo enabled; exit ;;
    "python3 -c import sys"*) cat $state/python; exit ;;
    "python3 -c import "*) grep -qx "${{2#import }}" $state/modules; exit ;;
esac
echo "$name $*" >>$state/log
[ -e $state/broken ] && case "$name $*" in "$(cat $state/broken)"*) exit 1 ;; esac
case "$name $*" in
    "apt-get install "*) for package; do
            echo "$package" >>$state/packages
            case $package in
                python3-libnvinfer) echo tensorrt >>$state/modules ;;
                *-vpi?) echo vpi >>$state/modules ;;
            esac
        done ;;
    "systemd-sysusers "*) : >$state/user ;;
    "userdel "*) rm $state/user ;;
    "systemctl enable "*) : >$state/enabled ;;
    "systemctl disable "*) rm -f $state/enabled ;;
    "python3 -m venv "*) for folder; do :; done; mkdir -p "$folder/bin"; cp "$0" "$folder/bin/python" ;;
    "install -d "*) for folder; do :; done; mkdir -p "$folder" ;;
esac
exit 0
"""
COMMANDS = (
    *("apt-get", "dpkg-query", "getent", "install", "runuser"),
    *("systemctl", "systemd-sysusers", "systemd-tmpfiles", "userdel"),
)


class Jetson:
    """A faked root with JetPack 6 flashed: its packages are there, Ubuntu's for building are not. checkout: as much of
    one as the script itself reads."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "checkout"
        for name in ("scripts/install-jetson", "agent/__init__.py", "agent/board.py", "systemd", "pyproject.toml"):
            (self.checkout / name).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, self.checkout / name)
        self.root, self.bin, self.state = folder / "root", folder / "bin", folder / "state"
        for made in (self.bin, self.state, self.root / "etc", self.root / "usr/bin", self.root / "usr/local/cuda/bin"):
            made.mkdir(parents=True)
        for path in (*(self.bin / name for name in COMMANDS), self.root / "usr/bin/python3"):
            path.write_text(COMMAND.format(state=self.state))
            path.chmod(0o755)
        shutil.copy(self.root / "usr/bin/python3", self.root / "usr/local/cuda/bin/nvcc")
        self.release(ORIN)
        self.python("3.10")
        self.systemd(249)
        (self.state / "packages").write_text("build-essential\n")
        (self.state / "modules").write_text("tensorrt\nvpi\n")

    def release(self, text: str) -> None:
        (self.root / "etc/nv_tegra_release").write_text(text)

    def python(self, version: str) -> None:
        (self.state / "python").write_text(version + "\n")

    def systemd(self, version: int) -> None:
        (self.state / "systemd").write_text(f"systemd {version} ({version}.11-0ubuntu3.12)\n+PAM +AUDIT\n")

    def run(self, *options: str, status: int = 0) -> str:
        """Output and errors of the script."""
        environment = {**os.environ, "PATH": f"{self.bin}:/usr/bin:/bin"}
        done = subprocess.run(
            [sys.executable, str(self.checkout / "scripts/install-jetson"), "--root", str(self.root), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        assert done.returncode == status, done.stdout
        return done.stdout

    def log(self) -> list[str]:
        """Commands that changed something, since the last call."""
        path = self.state / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def tree(self) -> dict[str, bytes | None]:
        return {
            str(path.relative_to(self.root)): path.read_bytes() if path.is_file() else None
            for path in sorted(self.root.rglob("*"))
        }


@pytest.fixture
def jetson(tmp_path: Path) -> Jetson:
    return Jetson(tmp_path)


def actions(output: str) -> list[str]:
    """What the script said that it does."""
    return [line for line in output.splitlines() if re.match(r"  (\$|write|link|remove) ", line)]


def test_a_dry_run_says_every_action_and_does_none(jetson: Jetson) -> None:
    before = jetson.tree()
    said = jetson.run("--dry-run")
    assert jetson.tree() == before and jetson.log() == []
    assert "Jetson, L4T 36.4.3, JetPack 6" in said
    assert actions(jetson.run()) == actions(said)


def test_an_installation_is_whole_and_a_second_one_has_nothing_to_do(jetson: Jetson) -> None:
    jetson.run()
    ran = jetson.log()
    environment = jetson.root / "opt/stillwatch/venv"
    assert [line.split()[0] for line in ran] == [
        *("apt-get", "apt-get", "systemd-sysusers", "python3", "python", "python", "python"),
        *("install", "runuser", "systemd-tmpfiles", "systemctl", "systemctl"),
    ]
    assert "python3.10-venv python3.10-dev" in ran[1] and "build-essential" not in ran[1]
    assert ran[3].endswith(f"venv --system-site-packages {environment}")
    assert "[jetson] numpy<2" in ran[4]
    assert ran[6].endswith(f"build-kernels --out {environment}/lib/python3.10/site-packages/vpi_ops/kernels/built")
    assert "model build reference" in ran[8] and "runuser -u stillwatch" in ran[8]
    assert (jetson.root / UNIT).read_text() == (ROOT / "systemd/stillwatch.service").read_text()
    assert str((jetson.root / "usr/local/bin/stillwatch").readlink()) == "/opt/stillwatch/venv/bin/stillwatch"
    before = jetson.tree()
    assert actions(jetson.run()) == [] and jetson.log() == [] and jetson.tree() == before


def test_a_new_version_goes_into_the_environment_that_is_there(jetson: Jetson) -> None:
    jetson.run()
    jetson.log()
    (jetson.checkout / "agent/board.py").open("a").write("# newer\n")
    jetson.run()
    ran = [line.split()[0] for line in jetson.log()]
    assert ran == ["python", "python", "python", "install", "runuser"]  # pip, pip, kernels, engines


def test_what_a_person_has_configured_is_never_written_over(jetson: Jetson) -> None:
    config = jetson.root / "etc/stillwatch/agent.yaml"
    config.parent.mkdir()
    config.write_text("cameras: {front: {source: /dev/video0}}\n")
    jetson.run()
    jetson.run("--uninstall")
    assert config.read_text() == "cameras: {front: {source: /dev/video0}}\n"


def test_the_first_configuration_is_one_that_runs(jetson: Jetson) -> None:
    jetson.run("--no-engines")
    from config.loading import load

    settings = load(jetson.root / "etc/stillwatch/agent.yaml", {})
    assert settings.cameras["demo"].source == "scene:street"


@pytest.mark.parametrize(
    ("release", "python", "reason"),
    [
        (None, "3.10", "no Jetson"),
        (ORIN.replace("R36", "R35"), "3.8", "JetPack 5 has Python 3.8; Stillwatch needs 3.10 or newer"),
        (ORIN.replace("R36", "R99"), "3.10", "no JetPack that this version knows"),
        (ORIN, "3.12", "/usr/bin/python3 is Python 3.12, expected 3.10"),
    ],
)
def test_a_machine_that_is_not_fit_is_left_alone(jetson: Jetson, release: str | None, python: str, reason: str) -> None:
    jetson.python(python)
    if release is None:
        (jetson.root / "etc/nv_tegra_release").unlink()
    else:
        jetson.release(release)
    before = jetson.tree()
    assert reason in jetson.run(status=78)
    assert jetson.tree() == before and jetson.log() == []


def test_what_only_a_newer_systemd_understands_is_installed_only_there(jetson: Jetson) -> None:
    jetson.run()
    assert not (jetson.root / NEWER).exists() and (jetson.root / TMPFILES).exists()
    jetson.systemd(255)
    jetson.log()
    assert "this is systemd 255" in jetson.run()
    assert (jetson.root / NEWER).read_text() == (ROOT / "systemd/stillwatch.service.d/10-systemd-254.conf").read_text()
    assert "systemctl daemon-reload" in jetson.log()
    assert actions(jetson.run()) == []
    jetson.systemd(249)  # the board was flashed anew, /etc was kept
    jetson.run()
    assert not (jetson.root / NEWER).exists()


def test_parts_of_jetpack_that_are_missing_are_named_and_installed(jetson: Jetson) -> None:
    (jetson.state / "modules").write_text("")
    (jetson.root / "usr/local/cuda/bin/nvcc").unlink()
    said = jetson.run("--dry-run")
    for package in (
        "python3-libnvinfer for TensorRT",
        "python3.10-vpi3 for VPI",
        "nvidia-jetpack for the CUDA toolkit",
    ):
        assert package in said
    assert "jetson-utils: not installed, so cameras are decoded by the CPU" in said


def test_a_step_that_fails_is_told_and_the_next_run_goes_on_there(jetson: Jetson) -> None:
    (jetson.state / "broken").write_text("python -m pip install")
    assert "run it again when that is mended" in jetson.run(status=1)
    assert not (jetson.root / UNIT).exists()
    jetson.log()
    (jetson.state / "broken").unlink()
    jetson.run()
    ran = jetson.log()
    assert not any(line.startswith(("apt-get", "systemd-sysusers", "python3 -m venv")) for line in ran)
    assert ran[-1] == "systemctl enable stillwatch.service" and (jetson.root / UNIT).exists()


def test_engines_that_can_t_be_built_do_not_keep_the_service_from_running(jetson: Jetson) -> None:
    (jetson.state / "broken").write_text("runuser -u stillwatch")
    said = jetson.run(status=1)
    assert "TensorRT engines: failed" in said and "the CPU does their work" in said
    assert jetson.log()[-1] == "systemctl enable stillwatch.service"
    (jetson.state / "broken").unlink()
    jetson.run()
    assert [line.split()[0] for line in jetson.log()] == ["install", "runuser"]


def test_uninstalling_leaves_what_is_the_owners_and_purging_nothing(jetson: Jetson) -> None:
    before = {name for name, content in jetson.tree().items() if content is not None}
    jetson.run()
    events = jetson.root / "var/lib/stillwatch/state/events.db"
    events.parent.mkdir()
    events.write_text("events")
    jetson.log()
    said = jetson.run("--uninstall")
    assert "Kept: /etc/stillwatch, /var/lib/stillwatch" in said and events.exists()
    assert jetson.log() == ["systemctl disable --now stillwatch.service", "systemctl daemon-reload"]
    for gone in (UNIT, NEWER, TMPFILES, "opt/stillwatch", "usr/local/bin/stillwatch", "var/cache/stillwatch"):
        assert not (jetson.root / gone).exists()
    jetson.run("--uninstall", "--purge")
    assert {name for name, content in jetson.tree().items() if content is not None} == before
    assert not (jetson.state / "user").exists()


@pytest.mark.parametrize("path", [SCRIPT, ROOT / "agent/board.py", ROOT / "agent/__init__.py"])
def test_the_python_of_jetpack_5_can_read_it_and_say_why_it_is_too_old(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
