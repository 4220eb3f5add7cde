"""`pycuda.compiler`: an image that says for which architecture it was made."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from simulated_kernels import IMAGE

from pycuda.driver import CompileError, _current


def compile(
    source: str,
    nvcc: str = "nvcc",
    options: Sequence[str] | None = None,
    keep: bool = False,
    no_extern_c: bool = False,
    arch: str | None = None,
    code: str | None = None,
    cache_dir: Any = None,
    include_dirs: Sequence[str] | None = None,
    target: str = "cubin",
) -> bytes:
    if arch is None:
        major, minor = _current().get_device().compute_capability()
        arch = f"sm_{major}{minor}"
    if not re.fullmatch(r"sm_(87|110)", arch) or "#include" not in source:
        raise CompileError("nvcc compilation failed")
    return IMAGE + arch.encode()
