"""The stand-in and our calls against TensorRT's real Python bindings.

The binding wheels are on PyPI; the libraries below them are not needed to look at names: stubs that export the entry
points are compiled. Fetched once into a cache (STILLWATCH_BINDINGS, default ~/.cache/stillwatch/bindings); offline, or
where a Python has no such wheel, the test says so and is skipped.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from engines.tensorrt.releases import release_of

TESTS = Path(__file__).parent
WHEELS = {
    "10.3.0": "tensorrt-cu12-bindings==10.3.0",
    "10.13.3": "tensorrt-cu13-bindings==10.13.3.9",
    "11.4.0": "tensorrt-cu13-bindings==11.4.0.106",
}
ENTRY_POINTS = """
    createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL getBuilderPluginRegistry
    getPluginRegistry initLibNvInferPlugins createNvOnnxParser_INTERNAL createNvOnnxParserRefitter_INTERNAL
    getNvOnnxParserVersion
"""
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
OURS = {"faults"}
"""In the stand-in alone."""
GUARDED = {
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": lambda release: release.explicit_batch,
    "PreviewFeature.PROFILE_SHARING_0806": lambda release: not release.shared_profiles,
}
"""Names that our code asks for only where its table of releases says so."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=WHEELS)
def real(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The surface of the real bindings of one release."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "stillwatch" / "bindings"
    cache = Path(os.environ.get("STILLWATCH_BINDINGS") or default) / f"{sys.implementation.cache_tag}-{request.param}"
    if not (cache / "tensorrt_bindings").is_dir():
        fetch(WHEELS[request.param], cache)
    stubs = stub_libraries(cache, request.param.split(".")[0])
    environment = {"LD_LIBRARY_PATH": str(stubs), "PYTHONPATH": str(cache)}
    return ask("tensorrt_bindings", environment)


def fetch(requirement: str, cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", str(cache)]
    try:
        done = subprocess.run([*command, requirement], capture_output=True, text=True, timeout=100)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{requirement} can't be fetched within 100 s")
    if done.returncode:
        pytest.skip(f"{requirement} can't be fetched: {done.stderr.strip().splitlines()[-1:]}")
    for wheel in cache.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(cache)
        wheel.unlink()


def stub_libraries(cache: Path, major: str) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler for the stub libraries")
    folder = cache / "stubs"
    folder.mkdir(exist_ok=True)
    source = folder / "stub.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in ENTRY_POINTS.split()))
    for library in LIBRARIES:
        file = f"lib{library}.so.{major}"
        if not (folder / file).is_file():
            subprocess.run(
                [compiler, "-shared", "-fPIC", f"-Wl,-soname,{file}", "-o", folder / file, source], check=True
            )
    return folder


def ask(module: str, environment: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, str(TESTS / "tensorrt_surface.py"), module]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def stand_in(version: str) -> dict[str, Any]:
    return ask("tensorrt", {"PYTHONPATH": str(TESTS / "jetson_sim"), "STILLWATCH_SIM_TENSORRT": version})


def test_the_stand_in_has_nothing_that_the_real_one_lacks(real: dict[str, Any]) -> None:
    ours = stand_in(real["version"])
    faults = []
    for name in ours["values"]:
        if name not in OURS and name not in real["values"]:
            faults.append(name)
    for name, members in ours["enums"].items():
        faults += [f"{name}.{one}" for one in members if one not in real["enums"].get(name, ())]
    for name, attributes in ours["classes"].items():
        if name not in real["classes"]:
            faults.append(name)
            continue
        for attribute, overloads in attributes.items():
            theirs = real["classes"][name]
            if attribute not in theirs:
                faults.append(f"{name}.{attribute}")
            elif overloads and theirs[attribute] is not None and overloads[0] not in theirs[attribute]:
                faults.append(f"{name}.{attribute}({', '.join(overloads[0])}): the real one takes {theirs[attribute]}")
    assert faults == []


def test_every_name_that_we_ask_for_is_there(real: dict[str, Any]) -> None:
    release = release_of(real["version"])
    missing = []
    for chain in sorted(asked_for()):
        first, _, member = chain.partition(".")
        known = first in real["values"] or first in real["classes"] or first in real["enums"]
        if member and first in real["enums"]:
            known = member in real["enums"][first]
        elif member and first in real["classes"]:
            known = member.split(".")[0] in (*real["classes"][first], "__init__")
        if not known and not (chain in GUARDED and not GUARDED[chain](release)):
            missing.append(chain)
    assert missing == []
    flags = set(real["enums"]["BuilderFlag"])
    assert release.precision_flags == ("FP16" in flags) and release.bf16 == ("BF16" in flags)
    assert release.progress == ("IProgressMonitor" in real["classes"])
    assert release.own_scratch == ("device_memory_size_v2" in real["classes"]["ICudaEngine"])


def asked_for() -> set[str]:
    """What follows `trt.` in our sources, such as `TensorIOMode.INPUT`."""
    found = set()
    for file in (TESTS.parent / "engines" / "tensorrt").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            chain: list[str] = []
            while isinstance(node, ast.Attribute):
                chain.insert(0, node.attr)
                node = node.value
            named = isinstance(node, ast.Name) and node.id in ("trt", "_trt")
            held = chain and chain[0] in ("trt", "_trt") and isinstance(node, ast.Name) and node.id == "self"
            if chain and named:
                found.add(".".join(chain))
            elif held and chain[1:]:
                found.add(".".join(chain[1:]))
    assert len(found) > 12, "our sources are not read as they should be"
    return found - {"__version__"}
