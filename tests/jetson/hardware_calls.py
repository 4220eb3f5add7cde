"""Whose method is called, in sources that use NVIDIA's and PyCUDA's modules: what an expression holds is followed from
imports and constructors through assignments, so that a call is held against the class it is made on, not against every
name that any class has."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
SURFACE: dict[str, Any] = json.loads((ROOT / "tests/jetson_sim/surface.json").read_text())


class Kind(NamedTuple):
    """A module (name empty), a class of it, an object of that class, or a list of such objects."""

    module: str
    name: str = ""
    what: str = "module"


PLAIN = Kind("", "", "plain")
"""A value of Python's or NumPy's, or an object of ours."""
IMPORTED = {
    **{name: Kind(name) for name in ("vpi", "tensorrt", "pycuda.driver", "pycuda.compiler")},
    **dict.fromkeys(("jetson_utils", "jetson_utils_python"), Kind("jetson_utils")),
}
HELD = {
    **dict.fromkeys(("vpi", "_vpi"), Kind("vpi")),
    **dict.fromkeys(("cuda", "_cuda", "driver", "_driver", "drv"), Kind("pycuda.driver")),
    **dict.fromkeys(("trt", "_trt", "tensorrt"), Kind("tensorrt")),
    "compiler": Kind("pycuda.compiler"),
}
"""Names that the product gives the modules, wherever they come from."""
GIVES: dict[str, dict[str, str]] = {
    "jetson_utils": {
        "Capture": "cudaImage",
        **dict.fromkeys(("cudaStreamCreate", "GetFrameRate", "IsStreaming"), ""),
    },
    "vpi": {
        **dict.fromkeys(("asimage", "optflow_dense", "convert", "rescale", "remap", "perspwarp"), "Image"),
        "gaussian_pyramid": "Pyramid",
        **dict.fromkeys(("rlock_cpu", "rwlock_cpu", "wlock_cpu", "cpu", "sync", "clear_cache"), ""),
    },
    "tensorrt": {
        "create_network": "INetworkDefinition",
        "create_builder_config": "IBuilderConfig",
        "create_optimization_profile": "IOptimizationProfile",
        **dict.fromkeys(("create_timing_cache", "get_timing_cache"), "ITimingCache"),
        **dict.fromkeys(("build_serialized_network", "serialize"), "IHostMemory"),
        "deserialize_cuda_engine": "ICudaEngine",
        "create_execution_context": "IExecutionContext",
        "get_error": "ParserError",
        **dict.fromkeys(("get_input", "get_output"), "ITensor"),
        **dict.fromkeys(
            ("nptype", "volume", "desc", "node", "line", "add_optimization_profile", "set_timing_cache"), ""
        ),
        **dict.fromkeys(("parse", "parse_from_file", "set_shape", "set_input_shape", "set_tensor_address"), ""),
        **dict.fromkeys(("infer_shapes", "execute_async_v3", "set_optimization_profile_async"), ""),
        **dict.fromkeys(("get_tensor_name", "get_tensor_mode", "get_tensor_dtype", "get_tensor_shape"), ""),
        **dict.fromkeys(("get_tensor_profile_shape", "get_device_memory_size_for_profile_v2"), ""),
    },
    "pycuda.driver": {
        **dict.fromkeys(("retain_primary_context", "get_current"), "Context"),
        "get_device": "Device",
        **dict.fromkeys(("module_from_file", "module_from_buffer"), "Module"),
        **dict.fromkeys(("get_function", "prepare"), "Function"),
        "mem_alloc": "DeviceAllocation",
        "record": "Event",
        **dict.fromkeys(("pagelocked_empty", "mem_get_info", "name", "compute_capability", "get_version"), ""),
        **dict.fromkeys(("get_driver_version", "get_device_pointer", "is_done", "query"), ""),
    },
    "pycuda.compiler": {"compile": ""},
}
"""Class of what a call gives; empty: a plain value."""
LIBCUDA = re.compile(r"cu[A-Z][A-Za-z]+(_v\d+)?")


@lru_cache
def members(kind: Kind) -> dict[str, list[str] | None]:
    """Parameters by what may follow an object of this kind; None: it is no function."""
    described = SURFACE[kind.module]
    if kind.what == "module":
        found: dict[str, list[str] | None] = dict(described.get("functions", {}))
        found.update({name: one["init"] for name, one in described.get("classes", {}).items()})
        others = (*described.get("enums", ()), *described.get("exceptions", ()), *described.get("attributes", ()))
        return {**dict.fromkeys(others), "__version__": None, **found}
    one = described["classes"][kind.name]
    bases = [one["base"]] if "base" in one else ["Container"] if kind.name in ("Image", "Pyramid") else []
    found = {} if kind.what == "object" else {"__init__": None}
    found.update(
        {name.partition(".")[2]: None for name in described.get("enums", ()) if name.startswith(f"{kind.name}.")}
    )
    for name in (*bases, kind.name):
        found.update(dict.fromkeys(described["classes"][name]["attributes"]))
        found.update(described["classes"][name]["methods"])
    return found


@lru_cache
def every() -> set[str]:
    """All names of all classes and modules."""
    kinds = [Kind(module) for module in SURFACE if module != "about"]
    kinds += [Kind(module, name, "object") for module, *_ in kinds for name in SURFACE[module].get("classes", ())]
    return {name for kind in kinds for name in members(kind)}


class Source:
    """One file. held: what names (`image`), attributes (`.base`) and those of a class (`_Block.raw`) hold besides what
    is found out."""

    def __init__(self, tree: ast.AST, held: dict[str, Kind]) -> None:
        self._held = {**HELD, **{f".{name}": kind for name, kind in HELD.items()}, **held}
        self._found: dict[str, Kind] = {}
        self.tree = tree
        classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        self._class = {id(node): one.name for one in classes for node in ast.walk(one)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name in IMPORTED:
                        self._held[alias.asname or alias.name] = IMPORTED[alias.name]
            elif isinstance(node, ast.ImportFrom) and f"{node.module}.{node.names[0].name}" in IMPORTED:
                alias = node.names[0]
                self._held[alias.asname or alias.name] = IMPORTED[f"{node.module}.{alias.name}"]
        for _ in range(6):  # what is assigned from what is assigned
            self._follow()

    def _follow(self) -> None:
        found: dict[str, set[Kind | None]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                for target in [node.target] if isinstance(node, ast.AnnAssign) else node.targets:
                    for place, value in _pairs(target, node.value):
                        if (name := self._place(place)) is not None:
                            found.setdefault(name, set()).add(self.kind(value))
            elif isinstance(node, ast.withitem) and (name := self._place(node.optional_vars)) is not None:
                found.setdefault(name, set()).add(self.kind(node.context_expr))
            elif isinstance(node, ast.FunctionDef) and any(_name(one) == "property" for one in node.decorator_list):
                given = [one.value for one in ast.walk(node) if isinstance(one, ast.Return) and one.value is not None]
                found.setdefault(f"{self._class[id(node)]}.{node.name}", set()).update(map(self.kind, given))
        for name, kinds in found.items():
            kinds.discard(Kind("", "", "none"))
            if len(kinds) == 1 and (only := kinds.pop()) is not None:
                self._found[name] = only

    def _place(self, node: ast.AST | None) -> str | None:
        """What a name or an attribute is known by."""
        if not isinstance(node, ast.Attribute):
            return _name(node)
        own = isinstance(node.value, ast.Name) and node.value.id == "self"
        return f"{self._class.get(id(node), '') if own else ''}.{node.attr}"

    def _known(self, place: str) -> Kind | None:
        shared = f".{place.partition('.')[2]}" if "." in place else place
        return self._held.get(place) or self._found.get(place) or self._held.get(shared)

    def kind(self, node: ast.AST | None) -> Kind | None:
        """What an expression holds; None where that isn't known."""
        if isinstance(node, ast.Constant):
            return Kind("", "", "none") if node.value is None else PLAIN
        if isinstance(node, ast.Name):
            return self._known(node.id)
        if isinstance(node, ast.Attribute):
            owner = self.kind(node.value)
            if owner is not None and owner.what == "module" and node.attr in SURFACE[owner.module].get("classes", {}):
                return Kind(owner.module, node.attr, "class")
            if owner is not None and owner.what in ("module", "class", "object"):
                return self._held.get(f".{node.attr}") or PLAIN
            return self._known(self._place(node) or "")
        if isinstance(node, ast.Call):
            return self._given(node)
        if isinstance(node, ast.List | ast.Tuple | ast.ListComp | ast.DictComp):
            single = node.elt if isinstance(node, ast.ListComp) else getattr(node, "value", None)
            elements = node.elts if isinstance(node, ast.List | ast.Tuple) else [single]
            kinds = {self.kind(element) for element in elements}
            only = kinds.pop() if len(kinds) == 1 else None
            return only._replace(what="list") if only is not None and only.what == "object" else None
        if isinstance(node, ast.Subscript):
            held = self.kind(node.value)
            return held._replace(what="object") if held is not None and held.what == "list" else None
        return None

    def _given(self, call: ast.Call) -> Kind | None:
        called = self.kind(call.func)
        if called is not None and called.what == "class":
            return called._replace(what="object")
        if not isinstance(call.func, ast.Attribute):
            return None
        owner = self.kind(call.func.value)
        if owner is None or owner.what not in ("module", "class", "object"):
            return None
        given = GIVES.get(owner.module, {}).get(call.func.attr)
        return None if given is None else Kind(owner.module, given, "object") if given else PLAIN


def _pairs(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        return list(zip(target.elts, value.elts, strict=True))
    return [(target, value)]


def _name(node: ast.AST | None) -> str | None:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None


def broken(tree: ast.AST, ours: set[str], held: dict[str, Kind] | None = None) -> Iterator[str]:
    """What a source does that the surface doesn't allow. ours: names that need not be of hardware."""
    source = Source(tree, held or {})
    called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    used = {
        id(child) for node in ast.walk(tree) if not isinstance(node, ast.Expr) for child in ast.iter_child_nodes(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call | ast.Attribute):
            yield from _libcuda(node)
        if not isinstance(node, ast.Attribute):
            continue
        owner = source.kind(node.value)
        if owner is None and isinstance(node.ctx, ast.Load) and node.attr in every() - ours:
            yield f"line {node.lineno}: whose {node.attr} it is, is not known"
        if owner is None or owner.what not in ("module", "class", "object"):
            continue
        allowed, name = members(owner), owner.name or owner.module
        if node.attr not in allowed:
            yield f"line {node.lineno}: {name} has no {node.attr}"
            continue
        call, parameters = called.get(id(node)), allowed[node.attr]
        if call is None:
            continue
        if parameters is not None:
            yield from (f"line {node.lineno}: {name}.{found}" for found in _arguments(node.attr, call, parameters))
        if id(call) in used and source.kind(call) is None:
            yield f"line {node.lineno}: what {name}.{node.attr}() gives is not known"


def _arguments(name: str, call: ast.Call, parameters: list[str]) -> Iterator[str]:
    variadic = any(parameter.startswith("*") for parameter in parameters)
    starred = any(isinstance(argument, ast.Starred) for argument in call.args)
    if not variadic and not starred and len(call.args) > len(parameters):
        yield f"{name}() takes {len(parameters)} arguments, {len(call.args)} are given"
    for keyword in call.keywords:
        if keyword.arg is not None and keyword.arg not in parameters:
            yield f"{name}({keyword.arg}=)"


def _libcuda(node: ast.Call | ast.Attribute) -> Iterator[str]:
    """A call of the driver: by its name, as text, or as a function of the library."""
    known, given = SURFACE["libcuda"]["functions"], None
    if isinstance(node, ast.Attribute):
        name = node.attr
    else:
        place = {"call": 0, "getattr": 1}.get(_name(node.func) or "")
        text = node.args[place] if place is not None and len(node.args) > place else None
        name = text.value if isinstance(text, ast.Constant) and isinstance(text.value, str) else ""
        given = len(node.args) - 1 if place == 0 else None
    if not LIBCUDA.fullmatch(name):
        return
    if name not in known:
        yield f"line {node.lineno}: libcuda has no {name} that is known"
    elif given not in (None, len(known[name])):
        yield f"line {node.lineno}: {name} takes {len(known[name])} arguments, {given} are given"
