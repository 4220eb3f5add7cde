"""The stand-in and our calls against TensorRT's real Python bindings.

The binding wheels are on PyPI; the libraries below them are not needed to look at names: stubs that export the entry
points are compiled. Fetched once into a cache (STILLWATCH_BINDINGS, default ~/.cache/stillwatch/bindings); offline, or
where a Python has no such wheel, the test says so and is skipped.
"""

from __future__ import annotations

import ast
import functools
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
    "8.6.1": "tensorrt-bindings==8.6.1",
    "10.3.0": "tensorrt-cu12-bindings==10.3.0",
    "10.13.3": "tensorrt-cu13-bindings==10.13.3.9",
    "11.4.0": "tensorrt-cu13-bindings==11.4.0.106",
}
ENTRY_POINTS = """
    createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL getBuilderPluginRegistry
    getPluginRegistry initLibNvInferPlugins createNvOnnxParser_INTERNAL createNvOnnxParserRefitter_INTERNAL
    getNvOnnxParserVersion _ZN11nvuffparser15createUffParserEv _ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi
    _ZN14nvcaffeparser117createCaffeParserEv _ZN14nvcaffeparser123shutdownProtobufLibraryEv
"""
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser", "nvparsers")
OURS = {"faults"}
"""In the stand-in alone."""
GUARDED = {
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": lambda release: release.explicit_batch,
    "PreviewFeature.PROFILE_SHARING_0806": lambda release: not release.shared_profiles,
    "ExecutionContextAllocationStrategy": lambda release: release.own_scratch,
    "ExecutionContextAllocationStrategy.USER_MANAGED": lambda release: release.own_scratch,
    "IProgressMonitor": lambda release: release.progress,
    "IProgressMonitor.__init__": lambda release: release.progress,
    "create_execution_context(1)": lambda release: release.own_scratch,
    "get_device_memory_size_for_profile_v2(1)": lambda release: release.own_scratch,
    "set_device_memory(2)": lambda release: release.own_scratch,
}
"""Names, and calls with so many arguments, of which our code makes use only where its table of releases says so."""
SOURCES = sorted((TESTS.parent / "engines" / "tensorrt").glob("*.py"))

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=WHEELS)
def real(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The surface of the real bindings of one release."""
    return bindings(request.param)


@functools.cache
def bindings(version: str) -> dict[str, Any]:
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "stillwatch" / "bindings"
    cache = Path(os.environ.get("STILLWATCH_BINDINGS") or default) / f"{sys.implementation.cache_tag}-{version}"
    if not (cache / "tensorrt_bindings").is_dir():
        fetch(WHEELS[version], cache)
    stubs = stub_libraries(cache, version.split(".")[0])
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
    source, text = folder / "stub.c", "".join(f"void *{name}(void) {{ return 0; }}\n" for name in ENTRY_POINTS.split())
    if not source.is_file() or source.read_text() != text:
        for library in LIBRARIES:
            file = f"lib{library}.so.{major}"
            command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{file}", "-x", "c", "-o", folder / file, "-"]
            subprocess.run(command, check=True, input=text.encode())
        source.write_text(text)
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
    for file in SOURCES:
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


def test_every_call_that_we_make_is_one_that_it_takes(real: dict[str, Any]) -> None:
    """Whose method is called, sources don't tell: one class that takes it so is enough."""
    release, faults = release_of(real["version"]), []
    for name, placed, named in calls():
        takers = [overloads for one in real["classes"].values() for overloads in one.get(name) or ()]
        call = f"{name}({placed + len(named)})"
        if not any(takes(one, placed, named) for one in takers) and not (
            call in GUARDED and not GUARDED[call](release)
        ):
            faults.append(f"{call} with {sorted(named)}: {takers or 'not there'}")
    assert faults == []


def takes(parameters: list[str], placed: int, named: frozenset[str]) -> bool:
    """Parameters that may be left out end with `=`."""
    names = [one.rstrip("=") for one in parameters]
    needed = {one for one in parameters[placed:] if not one.endswith("=")}
    return placed <= len(names) and named <= set(names[placed:]) and needed <= named


def test_what_we_derive_from_its_classes_is_called_as_we_expect(real: dict[str, Any]) -> None:
    release, seen = release_of(real["version"]), 0
    for node in (node for file in SOURCES for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))):
        if not (isinstance(node, ast.ClassDef) and node.bases and isinstance(node.bases[0], ast.Attribute)):
            continue
        base = node.bases[0].attr
        if base not in GUARDED or GUARDED[base](release):
            for method in (one for one in node.body if isinstance(one, ast.FunctionDef) and one.name != "__init__"):
                mine = [one.arg for one in method.args.args[1:]]
                assert mine in real["classes"][base][method.name], f"{base}.{method.name}"
                seen += 1
    assert seen >= (4 if release.progress else 1)


def calls() -> list[tuple[str, int, frozenset[str]]]:
    """Calls in our sources of methods that only TensorRT calls so, and of its classes: how many arguments are given by
    their place, and the names of the others."""
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in SOURCES]
    own = {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    surface = json.loads((TESTS / "jetson_sim" / "surface.json").read_text(encoding="utf-8"))["tensorrt"]
    methods = {name for described in surface["classes"].values() for name in described["methods"]}
    only = methods - own - {name for one in (dict, list, str, bytes, set) for name in dir(one)}
    found = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in only:
            named = frozenset(one.arg for one in node.keywords if one.arg)
            found.add((node.func.attr, len(node.args), named))
    assert len(found) > 30, "our sources are not read as they should be"
    return sorted(found, key=str)


def test_everything_that_is_known_is_in_some_release() -> None:
    """surface.json, by which sources and stand-ins are checked without the wheels: all of it is in 8.6, 10.3, 10.13 or
    11.4."""
    surface = json.loads((TESTS / "jetson_sim" / "surface.json").read_text(encoding="utf-8"))["tensorrt"]
    releases = [bindings(version) for version in WHEELS]
    faults = []
    for name, described in surface["classes"].items():
        theirs = [one["classes"].get(name, {}) for one in releases]
        faults += [f"{name}.{one}" for one in described["attributes"] if not any(one in each for each in theirs)]
        for method, parameters in described["methods"].items():
            if method.startswith("__"):
                continue
            ways = [[one.rstrip("=") for one in way] for each in theirs for way in each.get(method) or ()]
            if not any(parameters == way[: len(parameters)] for way in ways):
                faults.append(f"{name}.{method}({', '.join(parameters)}): {ways or 'not there'}")
    for name, members in surface["enums"].items():
        theirs = [one["enums"].get(name, []) for one in releases]
        faults += [f"{name}.{one}" for one in members if not any(one in each for each in theirs)]
    assert faults == []
