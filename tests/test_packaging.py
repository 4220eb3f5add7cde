"""The one wheel that is installed on every machine: what is in it, that it runs without the checkout, and the service
that comes along."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from agent import __version__

ROOT = Path(__file__).parents[1]
SYSTEMD = ROOT / "systemd"
PACKAGES = ("agent", "engines", "vpi_ops", "config")

needs_hatchling = pytest.mark.skipif(find_spec("hatchling") is None, reason="hatchling builds the wheel: see dev extra")
pytestmark = pytest.mark.timeout(600)


def run(*command: object, cwd: Path) -> str:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=kept | {"OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--no-build-isolation", "--disable-pip-version-check", "-w", folder)
    run(sys.executable, "-m", "pip", "wheel", *options, ROOT, cwd=folder)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A new environment with the wheel. The packages that it needs are those that the tests run with: no network."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin/python"
    options = ("--no-deps", "--no-index", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel, cwd=folder)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "needs.pth").write_text(sysconfig.get_path("purelib"))
    yield folder


@needs_hatchling
def test_the_wheel_is_for_every_machine_and_holds_what_it_needs(wheel: Path) -> None:
    assert wheel.name == f"stillwatch-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    wanted = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    wanted += [*(ROOT / "vpi_ops").rglob("*.c*"), *(ROOT / "engines/reference/model").iterdir()]
    wanted = [path for path in wanted if "__pycache__" not in path.parts]
    assert not [path for path in wanted if str(path.relative_to(ROOT)) not in names]
    shared = f"stillwatch-{__version__}.data/data/share/stillwatch"
    assert not [
        path for path in SYSTEMD.rglob("*.*") if path.is_file() and f"{shared}/{path.relative_to(ROOT)}" not in names
    ]
    assert {f"{shared}/systemd/install", f"{shared}/grafana/alerts.yml"} <= names
    assert not [name for name in names if name.startswith(("tests/", "scripts/")) or "__pycache__" in name]


@needs_hatchling
@pytest.mark.slow
def test_the_wheel_runs_without_the_checkout(environment: Path, tmp_path: Path) -> None:
    stillwatch = environment / "bin/stillwatch"
    where = run(environment / "bin/python", "-c", "import agent; print(agent.__file__)", cwd=tmp_path)
    assert where.startswith(str(environment))
    assert run(stillwatch, "--version", cwd=tmp_path) == f"stillwatch {__version__}\n"
    assert "reference" in run(stillwatch, "doctor", cwd=tmp_path)
    config = environment / "share/stillwatch/systemd/agent.yaml"
    assert "demo" in run(stillwatch, "config", "check", config, cwd=tmp_path)
    assert "good  model:" in run(stillwatch, "self-check", "--config", config, cwd=tmp_path)


def laid_out(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir() or path.is_symlink()}


@pytest.mark.parametrize(("systemd", "newer"), [("252", False), ("254", True)])
def test_the_installer_lays_out_the_service_and_takes_it_away(tmp_path: Path, systemd: str, newer: bool) -> None:
    install = ("sh", SYSTEMD / "install", "--root", tmp_path)
    unit = "etc/systemd/system/stillwatch.service"
    config, drop_in = tmp_path / "etc/stillwatch/agent.yaml", f"{unit}.d/10-systemd-254.conf"
    expected = {
        unit,
        "etc/stillwatch/agent.yaml",
        "usr/lib/sysusers.d/stillwatch.conf",
        "usr/lib/tmpfiles.d/stillwatch.conf",
        "usr/local/bin/stillwatch",
    }
    run(*install, "--systemd", systemd, cwd=tmp_path)
    assert laid_out(tmp_path) == expected | ({drop_in} if newer else set())
    assert config.stat().st_mode & 0o777 == 0o640
    config.write_text("cameras: {}\n")
    run(*install, "--systemd", "252", cwd=tmp_path)
    assert config.read_text() == "cameras: {}\n" and drop_in not in laid_out(tmp_path)
    run(*install, "--uninstall", cwd=tmp_path)
    assert laid_out(tmp_path) == {"etc/stillwatch/agent.yaml"}
