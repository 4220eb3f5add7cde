"""What a test can make go wrong, as it would on a device. `reset` puts everything right again."""

from __future__ import annotations

from dataclasses import dataclass, field, fields


@dataclass
class Faults:
    """build: what the builder says when it gives up, for so many builds (workspace below `build_fits` bytes is no
    fault). stray: noise added to every output of engines built while it is set. execute: calls of execute_async_v3
    that return False. contexts: calls of create_execution_context that return None."""

    build: str = ""
    builds: int = 99
    build_fits: int = 0
    stray: float = 0.0
    stray_only: str = ""
    execute: int = 0
    contexts: int = 0
    workspaces: list[int] = field(default_factory=list)

    def reset(self) -> None:
        for one in fields(self):
            setattr(self, one.name, type(self).__dict__.get(one.name, one.default))
        self.workspaces = []


faults = Faults()
