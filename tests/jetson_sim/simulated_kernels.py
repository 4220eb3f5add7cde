"""What a module image holds on the simulated device: the product's own kernels, compiled for the host by `kernel_shim`
and launched over the whole grid. The image says only for which architecture it was made."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from simulated_cuda import machine

Launch = Callable[[str | None, tuple[int, ...], tuple[int, ...], list[float], int], None]

IMAGE = b"simulated cubin "


def load(image: bytes) -> Callable[[str], Launch] | None:
    """Finds a kernel by its name; None for an image that this device can't run. The finder raises AttributeError."""
    major, minor = machine.capability
    if image != IMAGE + f"sm_{major}{minor}".encode():
        return None
    tests = str(Path(__file__).parents[1])
    if tests not in sys.path:
        sys.path.append(tests)
    from kernel_shim import host_module

    module = host_module()

    def find(name: str) -> Launch:
        function = module.get_function(name)

        def launch(
            types: str | None, grid: tuple[int, ...], block: tuple[int, ...], arguments: list[float], shared: int
        ) -> None:
            chosen = types or function.signature
            for letter, value in zip(chosen, arguments, strict=True):
                if letter == "P" and value:
                    machine.at(int(value), 1)
            function.prepare(chosen).prepared_async_call(grid, block, None, *arguments, shared_size=shared)

        return launch

    return find
