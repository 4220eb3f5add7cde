"""The calls that are known, and so ours and the stand-in's, against the real PyCUDA.

It has no wheels: it is compiled once, against the headers of CUDA that scripts/cuda-toolkits has fetched (or those of
this machine) and a driver of stubs, into a cache (STILLWATCH_BINDINGS, default ~/.cache/stillwatch/bindings). Nothing
of it runs but its import, so it is compiled without optimising, in a minute. Without headers, compiler or network the
tests say so and are skipped.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vpi_ops import kernels

TESTS = Path(__file__).parent
VERSION = "2026.1"
MODULES = ("pycuda.driver", "pycuda.compiler")
NEEDS = ("pytools", "siphash24", "platformdirs")
"""What it imports; NumPy is here."""
NOT_IN_THE_DRIVER = {"CompileError"}
"""Named in pycuda.driver by surface.json, raised by pycuda.compiler."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def real() -> dict[str, Any]:
    """The surface of the real modules."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "stillwatch" / "bindings"
    cache = Path(os.environ.get("STILLWATCH_BINDINGS") or default) / f"{sys.implementation.cache_tag}-pycuda-{VERSION}"
    if not (cache / "site" / "pycuda").is_dir():
        build(cache)
    command = [sys.executable, str(TESTS / "pycuda_surface.py"), *MODULES]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(cache), "PYTHONPATH": str(cache / "site")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def build(cache: Path) -> None:
    compiler, toolkit = shutil.which("gcc") or shutil.which("cc"), headers()
    if toolkit is None or compiler is None:
        pytest.skip("PyCUDA is compiled with gcc against the headers of CUDA, which scripts/cuda-toolkits fetches")
    cache.mkdir(parents=True, exist_ok=True)
    stub_driver(compiler, toolkit / "include" / "cuda.h", cache)
    (cache / ".aksetup-defaults.py").write_text("CUDA_ENABLE_CURAND = False\n")
    environment = {
        **os.environ,
        "HOME": str(cache),
        "CPATH": str(toolkit / "include"),
        "LIBRARY_PATH": str(cache),
        "CUDA_ROOT": str(toolkit),
        "CFLAGS": "-O0 -g0",
    }
    unfinished = cache / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(unfinished)]
    try:
        done = subprocess.run(
            [*command, f"pycuda=={VERSION}", *NEEDS], env=environment, capture_output=True, text=True, timeout=1200
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"PyCUDA {VERSION} was not compiled within twenty minutes")
    if done.returncode:
        pytest.skip(f"PyCUDA {VERSION} can't be fetched or compiled: {done.stderr.strip().splitlines()[-1:]}")
    unfinished.rename(cache / "site")


def headers() -> Path | None:
    """A CUDA toolkit with its headers."""
    nvcc = kernels.find_nvcc()
    fetched: Path = runpy.run_path(str(TESTS.parent / "scripts" / "cuda-toolkits"))["NVCC"][13].parents[1]
    places = [
        fetched,
        Path(os.environ.get("CUDA_HOME") or "/usr/local/cuda"),
        *(nvcc.resolve().parents if nvcc else ()),
    ]
    return next((place for place in places if (place / "include" / "cuda.h").is_file()), None)


def stub_driver(compiler: str, header: Path, folder: Path) -> None:
    """A libcuda.so.1 that has every name and can do nothing."""
    text = header.read_text(encoding="utf-8")
    names = set(re.findall(r"\b(cu[A-Z]\w+)\s*\(", text)) | {"cuProfilerInitialize"}
    names |= {f"{name}_v{number}" for name in names for number in (2, 3, 4)}
    told = {"cuGetErrorString", "cuGetErrorName"}
    lines = [f"int {name}(void) {{ return 100; }}" for name in sorted(names - told)]
    lines += [f'int {name}(int e, const char **s) {{ *s = "stub"; return 0; }}' for name in sorted(told)]
    (folder / "stub.c").write_text("\n".join(lines))
    library = folder / "libcuda.so.1"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", library, folder / "stub.c"], check=True
    )
    shutil.copy(library, folder / "libcuda.so")


def refused(parameters: list[str], overloads: list[list[str]]) -> bool:
    """Whether no overload takes so many parameters of these names. Those that the real one doesn't name are taken by
    their place."""

    def takes(real: list[str]) -> bool:
        unnamed = sum(name.startswith("arg") and name[3:].isdigit() for name in real)
        return sum(name not in real for name in parameters if name != "*args") <= unnamed

    return not any(takes(real) for real in overloads)


def test_every_call_that_is_known_is_one_that_pycuda_takes(real: dict[str, Any]) -> None:
    surface = json.loads((TESTS / "jetson_sim" / "surface.json").read_text(encoding="utf-8"))
    faults = []
    for module in MODULES:
        known, theirs = surface[module], real[module]
        for name, parameters in known["functions"].items():
            if name not in theirs["functions"]:
                faults.append(name)
            elif refused(parameters, theirs["functions"][name]):
                faults.append(f"{name}({', '.join(parameters)}): the real one takes {theirs['functions'][name]}")
        for name, described in known["classes"].items():
            members = theirs["classes"].get(name)
            if members is None:
                faults.append(name)
                continue
            faults += [f"{name}.{one}" for one in described["attributes"] if one not in members]
            for method, parameters in {"__init__": described["init"], **described["methods"]}.items():
                if method in ("__index__",) or (method == "__init__" and not parameters):
                    continue
                if method not in members:
                    faults.append(f"{name}.{method}")
                elif refused(parameters, members[method] or []):
                    faults.append(f"{name}.{method}({', '.join(parameters)}): the real one takes {members[method]}")
        for name, listed in known.get("enums", {}).items():
            faults += [f"{name}.{one}" for one in listed if one not in theirs["classes"].get(name, {})]
        errors = set(known.get("exceptions", ())) - NOT_IN_THE_DRIVER
        faults += sorted(errors - theirs["classes"].keys())
    assert faults == []


def test_flags_have_the_values_of_the_real_ones(real: dict[str, Any]) -> None:
    code = (
        "import json, pycuda.driver as d; print(json.dumps({f'{c}.{k}': v for c in ('host_alloc_flags', 'event_flags', "
        "'ctx_flags') for k, v in vars(getattr(d, c)).items() if isinstance(v, int)}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(TESTS / "jetson_sim")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    ours, theirs = json.loads(done.stdout), real["pycuda.driver"]["values"]
    assert len(ours) > 10
    assert {name: value for name, value in ours.items() if theirs.get(name) != value} == {}


def test_what_is_not_there_is_found_out(real: dict[str, Any]) -> None:
    functions = real["pycuda.driver"]["functions"]
    assert refused(["dest", "src", "queue"], functions["memcpy_htod_async"])
    assert refused(["dest", "data", "size", "more"], functions["memset_d8"])
    assert not refused(["dest", "src", "stream"], functions["memcpy_htod_async"])
    call = real["pycuda.driver"]["classes"]["Function"]["prepared_async_call"]
    assert call and "shared_size" in call[0]
