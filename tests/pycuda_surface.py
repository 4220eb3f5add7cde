"""Prints what PyCUDA's modules hold as JSON: `python pycuda_surface.py MODULE…`, run on the real one, with a stub
driver under it. The parameters of its C++ part stand in docstrings only; those without a name there are called arg1, …

module → functions and classes: name → overloads, or {attribute: overloads, or null for what is no method}; an overload
is a list of names without self, `*` for any number of further arguments. values: whole numbers, such as flags.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from typing import Any


def surface(module: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"functions": {}, "classes": {}, "values": {}}
    for name, thing in vars(module).items():
        if isinstance(thing, type):
            names = [one for one in dir(thing) if not one.startswith("_") or one in ("__init__", "__call__", "__int__")]
            found["classes"][name] = {one: overloads(getattr(thing, one, None), inside=True) for one in names}
            found["values"].update(
                {f"{name}.{one}": int(value) for one, value in vars(thing).items() if isinstance(value, int)}
            )
        elif callable(thing):
            found["functions"][name] = overloads(thing, inside=False)
    return found


def overloads(thing: Any, *, inside: bool) -> list[list[str]] | None:
    if not callable(thing):
        return None
    written = re.findall(r"^\w+\((.*)\) ->", getattr(thing, "__doc__", None) or "", re.MULTILINE)
    if written and "C++ signature" in thing.__doc__:
        return [_without_self(re.findall(r"\((\w+)\)(\w+)", one), inside) for one in written]
    try:
        parameters = list(inspect.signature(thing).parameters.values())
    except (TypeError, ValueError):
        return [["*"]]
    names = ["*" if one.kind is one.VAR_POSITIONAL else one.name for one in parameters]
    if inspect.isfunction(thing):  # what it takes out of **kwargs only its source tells
        names = [one for one in names[inside:] if one != "kwargs"]
        names += re.findall(r"""kwargs\.(?:pop|get)\(\s*["'](\w+)""", inspect.getsource(thing))
    return [names]


def _without_self(pairs: list[tuple[str, str]], inside: bool) -> list[str]:
    """The first of a method is unnamed: the object itself. Static methods have none, and their first is named."""
    names = [name for _, name in pairs]
    return names[1:] if inside and names[:1] == ["arg1"] else names


if __name__ == "__main__":
    json.dump({name: surface(importlib.import_module(name)) for name in sys.argv[1:]}, sys.stdout)
