"""Prints the names of a TensorRT module as JSON: `python tensorrt_surface.py MODULE`. Run on the real bindings, with
stub libraries under them, and on the stand-in, so that the two can be compared.

Classes: name → {attribute: parameters without self, one list an overload; null for what is no method}; those that may
be left out end with `=`. Enums: name → members. Parameters of the bindings stand in their docstrings only.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from typing import Any


def surface(module: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"version": module.__version__, "classes": {}, "enums": {}, "values": []}
    for name, thing in vars(module).items():
        if name.startswith("_") or inspect.ismodule(thing):
            continue
        if not isinstance(thing, type):
            found["values"].append(name)
        elif hasattr(thing, "__members__"):
            found["enums"][name] = sorted(thing.__members__)
        else:
            found["classes"][name] = {
                attribute: overloads(attribute, getattr(thing, attribute)) for attribute in public(thing)
            }
            nested = {f"{name}.{one}": getattr(thing, one) for one in public(thing)}
            enums = {one: enum for one, enum in nested.items() if hasattr(enum, "__members__")}
            found["enums"] |= {one: sorted(enum.__members__) for one, enum in enums.items()}
    return found


def public(cls: type) -> list[str]:
    own = {name for one in cls.__mro__ if one.__module__.startswith("tensorrt") for name in vars(one)}
    return sorted(name for name in own if not name.startswith("_"))


def overloads(name: str, thing: Any) -> list[list[str]] | None:
    if not callable(thing) or isinstance(thing, type):
        return None
    written = re.findall(rf"^(?:\d+\. )?{name}\((.*)\) ->", thing.__doc__ or "", re.MULTILINE)
    if written:
        return [names(one) for one in written if not one.startswith("*args")]
    parameters = [one for one in inspect.signature(thing).parameters.values() if one.name != "self"]
    return [[one.name + "=" * (one.default is not one.empty) for one in parameters]]


def names(written: str) -> list[str]:
    """`self: X, name: str, flags: int = 0` → name, flags; types may hold brackets and commas of their own."""
    flat = re.sub(r"<[^<>]*>", "", written)
    while (less := re.sub(r"\[[^\[\]]*\]", "", flat)) != flat:
        flat = less
    parts = [part.partition(":")[0].partition("=")[0].strip() + "=" * ("=" in part) for part in flat.split(",")]
    return [part for part in parts if part and part != "self"]


if __name__ == "__main__":
    json.dump(surface(importlib.import_module(sys.argv[1])), sys.stdout)
