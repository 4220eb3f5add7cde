"""Nothing is called of NVIDIA's and PyCUDA's modules that isn't known from their sources or documentation.

`surface.json` lists what is known. The product's source is walked twice. A call whose name belongs to nothing of ours,
of Python or of the libraries that we install must be in it, and where a known name is called, with known keywords. And
what an object of theirs is asked for must be its class's, with no more arguments than that takes (`hardware_calls`).
The stand-ins, too, take no more than it says.
"""

from __future__ import annotations

import ast
import builtins
import collections
import contextlib
import ctypes
import fcntl
import hashlib
import importlib
import inspect
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
import structlog
from hardware_calls import PLAIN, ROOT, SURFACE, Kind, broken

HARDWARE = ("jetson_utils", "jetson_utils_python", "vpi", "pycuda", "tensorrt")
PACKAGES = ("agent", "engines", "vpi_ops", "config")
LIBRARIES = (
    builtins,
    collections,
    contextlib,
    ctypes,
    shutil,
    subprocess,
    fcntl,
    json,
    io.BytesIO,
    collections.deque,
    structlog,
    importlib,
    os,
    re,
    sys,
    tempfile,
    threading,
    time,
    weakref,
)
TYPES = (str, bytes, dict, list, set, tuple, int, float, OSError, Path, re.Pattern, re.Match)
MADE = (type(hashlib.sha256()), type(threading.Lock()))
PACKAGED = (np, np.random, np.ndarray, np.generic, np.random.Generator, cv2, onnxruntime.InferenceSession)
LOGGER = structlog.stdlib.BoundLogger
MODULES = [name for name in SURFACE if name != "about"]
HANDLES = {
    **dict.fromkeys(("vpi", "_vpi"), "vpi"),
    **dict.fromkeys(("cuda", "driver", "_driver", "drv"), "pycuda.driver"),
    **dict.fromkeys(("trt", "_trt", "tensorrt"), "tensorrt"),
    "compiler": "pycuda.compiler",
    "_library": "jetson_utils",
}
"""Names that the product gives the modules."""
CUDA_STREAM = Kind("pycuda.driver", "Stream", "object")
HOLDS: dict[str, dict[str, Kind]] = {
    "agent/capture/jetson_camera.py": {
        "._library": Kind("jetson_utils"),
        **dict.fromkeys(("source", "._source"), Kind("jetson_utils", "videoSource", "object")),
        **dict.fromkeys(("image", "._image"), Kind("jetson_utils", "cudaImage", "object")),
    },
    "engines/tensorrt/cuda.py": {
        "_Block.raw": Kind("pycuda.driver", "DeviceAllocation", "object"),
        "_Stream._raw": CUDA_STREAM._replace(what="list"),
    },
    "engines/tensorrt/graphs.py": {"driver": PLAIN},  # our own
    "vpi_ops/cuda.py": {
        "context": Kind("pycuda.driver", "Context", "object"),
        "module": Kind("pycuda.driver", "Module", "object"),
    },
    "vpi_ops/jetson.py": {".beside": CUDA_STREAM, ".stream": CUDA_STREAM},
    "vpi_ops/jetson_flow.py": dict.fromkeys(("source", "vectors"), Kind("vpi", "Image", "object")),
    "vpi_ops/jetson_grey.py": {"painted": Kind("pycuda.driver", "Event", "object"), ".stream": CUDA_STREAM},
    "vpi_ops/jetson_memory.py": {
        "context": Kind("pycuda.driver", "Context", "object"),
        "block": Kind("pycuda.driver", "DeviceAllocation", "object"),
        "stream": CUDA_STREAM,
        ".base": Kind("pycuda.driver", "PagelockedHostAllocation", "object"),
    },
}
"""What comes into a file from elsewhere, by name."""


def sources() -> list[Path]:
    """Files that name a hardware module, and those that handle what these hand on."""
    found = []
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            names = {alias.name for node in ast.walk(ast.parse(file.read_text())) for alias in _imported(node)}
            handles = file.name == "jetson_camera.py" or ("jetson" in file.name and package == "vpi_ops")
            handles = handles or file.parent.name == "tensorrt"
            if handles or any(name.partition(".")[0] in HARDWARE for name in names):
                found.append(file)
    return found


def _imported(node: ast.AST) -> list[ast.alias]:
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return [ast.alias(f"{node.module}.{alias.name}") for alias in node.names]
    return node.names if isinstance(node, ast.Import) else []


@lru_cache
def known() -> tuple[dict[str, set[str]], set[str]]:
    """Parameters by the name of what is called, and every other name."""
    calls: dict[str, set[str]] = {}
    names: set[str] = set()
    for module in SURFACE.values():
        if isinstance(module, str):
            continue
        for name, parameters in module.get("functions", {}).items():
            calls.setdefault(name, set()).update(parameters)
        for name, described in module.get("classes", {}).items():
            calls.setdefault(name, set()).update(described["init"])
            for method, parameters in described["methods"].items():
                calls.setdefault(method, set()).update(parameters)
            names.update(described["attributes"])
        for name, members in module.get("enums", {}).items():
            names.update([name, *members])
        names.update(module.get("exceptions", []), module.get("attributes", []))
    return calls, names


@lru_cache
def ours() -> tuple[dict[str, set[str]], set[str]]:
    """The same for what the product defines itself: functions with their parameters, and attributes."""
    calls: dict[str, set[str]] = {}
    names: set[str] = set()
    for file in (file for package in PACKAGES for file in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef):
                every = [*node.args.args, *node.args.kwonlyargs, *node.args.posonlyargs]
                calls.setdefault(node.name, set()).update(arg.arg for arg in every)
                names.update(arg.arg for arg in every)
            elif isinstance(node, ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.AnnAssign | ast.Assign):
                for target in [node.target] if isinstance(node, ast.AnnAssign) else node.targets:
                    for part in ast.walk(target):
                        if isinstance(part, ast.Name | ast.Attribute) and isinstance(part.ctx, ast.Store):
                            names.add(part.id if isinstance(part, ast.Name) else part.attr)
    return calls, names


@lru_cache
def elsewhere() -> set[str]:
    """Names of Python and of the libraries that we install."""
    return {name for thing in (*LIBRARIES, *TYPES, *MADE, *PACKAGED, LOGGER) for name in dir(thing)} | {
        "astype",
        "__array_interface__",
    }


def _strict(node: ast.Attribute) -> set[str] | None:
    """What may follow a module's own name, or that of one of its enumerations; None where it is something else."""
    receiver = node.value
    last = (
        receiver.id if isinstance(receiver, ast.Name) else receiver.attr if isinstance(receiver, ast.Attribute) else ""
    )
    if last in HANDLES:
        module = SURFACE[HANDLES[last]]
        kinds = ("functions", "classes", "enums", "exceptions", "attributes")
        return {name for kind in kinds for name in module.get(kind, ())} | {"__version__"}
    for name in MODULES:
        if last[:1].isupper() and last in SURFACE[name].get("enums", {}):
            return {*SURFACE[name]["enums"][last], "__members__"}
    return None


def unknown(tree: ast.AST) -> Iterator[str]:
    """What a source does that nothing allows."""
    (calls, names), (own, mine), python = known(), ours(), elsewhere()
    called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or (isinstance(node.ctx, ast.Store) and node.attr not in names):
            continue
        call, only = called.get(id(node)), _strict(node)
        if only is not None and node.attr not in only:
            yield f"line {node.lineno}: .{node.attr}"
        elif call is None:
            if node.attr not in names | mine | python and node.attr not in calls and node.attr not in own:
                yield f"line {node.lineno}: .{node.attr}"
        elif node.attr in calls:
            given = {keyword.arg for keyword in call.keywords if keyword.arg is not None}
            allowed = calls[node.attr] | own.get(node.attr, set())
            if given - allowed and (only is not None or node.attr not in python):
                yield f"line {node.lineno}: {node.attr}({', '.join(sorted(given - allowed))}=)"
        elif node.attr not in own and node.attr not in python and node.attr not in mine:
            yield f"line {node.lineno}: .{node.attr}()"


def test_every_hardware_call_of_the_product_is_known() -> None:
    files = sources()
    assert {"jetson_memory.py", "jetson_flow.py", "jetson_camera.py", "cuda.py"} <= {file.name for file in files}
    found = {str(file.relative_to(ROOT)): list(unknown(ast.parse(file.read_text()))) for file in files}
    assert {file: calls for file, calls in found.items() if calls} == {}


def elsewhere_too() -> set[str]:
    own, mine = ours()
    return {*own, *mine, *elsewhere()}


def test_every_hardware_object_of_the_product_is_asked_for_what_its_class_has() -> None:
    held = {str(file.relative_to(ROOT)): file for file in sources()}
    assert set(HOLDS) <= set(held)
    found = {
        name: list(broken(ast.parse(file.read_text()), elsewhere_too(), HOLDS.get(name))) for name, file in held.items()
    }
    assert {file: calls for file, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    ("code", "what"),
    [
        # Names that Python has, or another class, on what was made or given by hardware.
        ("stream = cuda.Stream(1)\nstream.get()", "Stream has no get"),
        (
            "self.context = cuda.Device(0).retain_primary_context()\nself.context.wait_for_event(e)",
            "Context has no wait",
        ),
        ("import pycuda.driver as anything\nanything.sleep(5)", "pycuda.driver has no sleep"),
        ("with vpi.Image((4, 4), vpi.Format.U8).rlock_cuda() as b:\n    pass", "what Image.rlock_cuda() gives"),
        ("streams = [cuda.Stream(), cuda.Stream()]\nstreams[0].sync()", "Stream has no sync"),
        ("it = trt.Runtime(log).deserialize_cuda_engine(plan)\nit.execute_async_v3(5)", "ICudaEngine has no execute"),
        # Nobody knows on what.
        ("thing.execute_async_v3(5)", "whose execute_async_v3 it is"),
        # Arguments.
        ("cuda.mem_alloc(5, 6)", "mem_alloc() takes 1 arguments, 2 are given"),
        ("stream = vpi.Stream(3)", "Stream() takes 0 arguments, 1 are given"),
        ("cuda.Context.synchronize(5)", "synchronize() takes 0 arguments, 1 are given"),
        ("trt.Builder(log).create_network(0, 1)", "create_network() takes 1 arguments, 2"),
        ("event = cuda.Event(when=3)", "Event(when=)"),
        # CUDA graphs, of the driver itself.
        ("driver.call('cuGraphUpload', ready, stream)", "libcuda has no cuGraphUpload"),
        ("driver.call('cuGraphLaunch', ready)", "cuGraphLaunch takes 2 arguments, 1 are given"),
        ("getattr(library, 'cuStreamBeginCapture')(stream, mode)", "libcuda has no cuStreamBeginCapture that"),
        ("self._library.cuGraphExecUpdate(ready, graph)", "libcuda has no cuGraphExecUpdate"),
    ],
)
def test_what_a_class_does_not_have_or_take_is_reported(code: str, what: str) -> None:
    assert what in "".join(broken(ast.parse(code), elsewhere_too()))


def test_the_driver_s_calls_are_those_of_the_stand_in(jetson: Any) -> None:
    from simulated_libcuda import LibCuda

    listed = SURFACE["libcuda"]["functions"]
    calls = {name: value for name, value in vars(LibCuda).items() if name.startswith("cu")}
    assert {name: len(inspect.signature(call).parameters) - 1 for name, call in calls.items()} == {
        name: len(parameters) for name, parameters in listed.items()
    }


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("self._vpi.absdiff(a, b)", "absdiff"),
        ("driver.mem_alloc_managed(5)", "mem_alloc_managed"),
        ("driver.mem_alloc(5).as_pointer", "as_pointer"),
        ("source.Capture(format='rgb8', wait=3)", "Capture(wait=)"),
        ("vpi.optflow_dense(a, b, gridsize=4, numPasses=2)", "optflow_dense(numPasses=)"),
        ("vpi.Format.S2S16", "S2S16"),
        ("config.set_flag(trt.BuilderFlag.FP32)", "FP32"),
    ],
)
def test_a_call_that_is_not_known_is_reported(code: str, what: str) -> None:
    assert what in "".join(unknown(ast.parse(code)))


def test_names_that_are_looked_up_as_text_are_known() -> None:
    from agent.capture.jetson_camera import CODECS, FLIPS, CameraOptions
    from vpi_ops.jetson_flow import ROUTES

    enums = SURFACE["vpi"]["enums"]
    for route in ROUTES:
        assert {route.source, *(format for _, format in route.steps)} <= set(enums["Format"])
        assert {backend for backend, _ in route.steps} <= set(enums["Backend"])
    every = CameraOptions("csi://0", "cam", (1, 1), 30.0, "H264", "none", 10).as_options()
    assert set(every) <= set(SURFACE["jetson_utils"]["options"])
    assert set(CODECS) <= set(SURFACE["jetson_utils"]["enums"]["codec"])
    assert set(FLIPS) == set(SURFACE["jetson_utils"]["enums"]["flipMethod"])


def _parameters(thing: Any) -> set[str]:
    try:
        found = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return set()
    return {one.name for one in found if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)} - {"self"}


@pytest.mark.parametrize(
    ("module", "listed"),
    [
        ("jetson_utils_python", "jetson_utils"),
        ("vpi", "vpi"),
        ("pycuda.driver", "pycuda.driver"),
        ("pycuda.compiler", "pycuda.compiler"),
    ],
)
def test_the_stand_ins_offer_nothing_that_is_not_known(module: str, listed: str, jetson: Any) -> None:
    surface = SURFACE[listed]
    stand_in = importlib.import_module(module)
    containers = surface["classes"].get("Container", {"methods": {}})["methods"]
    extra = []
    for name, thing in vars(stand_in).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != stand_in.__name__:
            continue
        if inspect.isfunction(thing):
            if name not in surface["functions"] or _parameters(thing) - set(surface["functions"][name]):
                extra.append(name)
        elif inspect.isclass(thing) and name in surface["classes"]:
            described = surface["classes"][name]
            methods = {**containers, **described["methods"]}
            allowed = {*methods, *described["attributes"], "__init__"}
            if "base" in described:
                allowed.update(surface["classes"][described["base"]]["attributes"])
            for attribute, value in vars(thing).items():
                if attribute.startswith("_"):
                    continue
                if attribute not in allowed:
                    extra.append(f"{name}.{attribute}")
                elif inspect.isfunction(value) and _parameters(value) - set(methods[attribute]):
                    extra.append(f"{name}.{attribute}({_parameters(value) - set(methods[attribute])})")
        elif inspect.isclass(thing) and name in surface.get("enums", {}):
            members = {member for member in vars(thing) if not member.startswith("_")}
            if members - set(surface["enums"][name]):
                extra.append(f"{name}: {members - set(surface['enums'][name])}")
        elif name not in surface.get("exceptions", []) and name not in ("Behaviour", "behaviour", "CompileError"):
            extra.append(name)
    assert extra == []


@pytest.mark.parametrize("release", ["8.6.2", "10.3.0", "11.4.0"])
def test_the_stand_in_of_tensorrt_offers_nothing_that_is_not_known(
    release: str, jetson: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLWATCH_SIM_TENSORRT", release)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorrt"]:
        monkeypatch.delitem(sys.modules, name)
    stand_in, surface, extra = importlib.import_module("tensorrt"), SURFACE["tensorrt"], []
    for name, thing in vars(stand_in).items():
        if name.startswith("_") or not inspect.isclass(thing):
            continue
        if hasattr(thing, "__members__"):
            extra += [f"{name}.{one}" for one in thing.__members__ if one not in surface["enums"].get(name, ())]
            continue
        described = surface["classes"].get(name, {"methods": {}, "attributes": ()})
        for attribute, value in vars(thing).items():
            if attribute.startswith("_"):
                continue
            if inspect.isfunction(value):
                extra += [f"{name}.{attribute}()"] if attribute not in described["methods"] else []
                more = _parameters(value) - set(described["methods"].get(attribute, ()))
                extra += [f"{name}.{attribute}({more})"] if more else []
            elif attribute not in described["attributes"]:
                extra.append(f"{name}.{attribute}")
    assert stand_in.__version__ == release and extra == []
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorrt"]:
        del sys.modules[name]
