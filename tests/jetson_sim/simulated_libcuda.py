"""The calls of libcuda for CUDA graphs, on the simulated device. Status codes are those of cuda.h."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from simulated_cuda import ContractBroken, machine

_INVALID_VALUE, _INVALID_CONTEXT, _LAUNCH_FAILED = 1, 201, 719
Work = Callable[[], None]


class _Recording(deque[Work]):
    def popleft(self) -> Work:
        raise ContractBroken("a stream is waited for while it is recorded")


class LibCuda:
    """refuse: status that recording ends with. launches: so many more graph launches fail."""

    def __init__(self) -> None:
        self.refuse = self.launches = 0
        self._before: dict[int, deque[Work]] = {}
        self._graphs: dict[int, list[Work]] = {}
        self._ready: dict[int, list[Work]] = {}

    def cuStreamBeginCapture_v2(self, stream: Any, mode: Any) -> int:
        if machine.current is None:
            return _INVALID_CONTEXT
        if stream.value in self._before or mode.value not in (0, 1, 2):
            return _INVALID_VALUE
        self._before[stream.value] = machine.stream(stream.value).queue
        machine.stream(stream.value).queue = _Recording()
        return 0

    def cuStreamEndCapture(self, stream: Any, graph: Any) -> int:
        recorded = machine.stream(stream.value).queue
        machine.stream(stream.value).queue = self._before.pop(stream.value)
        if self.refuse:
            return self.refuse
        graph._obj.value = 1 + len(self._graphs)
        self._graphs[graph._obj.value] = list(recorded)
        return 0

    def cuGraphInstantiateWithFlags(self, ready: Any, graph: Any, flags: Any) -> int:
        ready._obj.value = 0x100 + len(self._ready)
        self._ready[ready._obj.value] = self._graphs[graph.value]
        return 0

    def cuGraphLaunch(self, ready: Any, stream: Any) -> int:
        if machine.current is None:
            return _INVALID_CONTEXT
        if self.launches > 0:
            self.launches -= 1
            return _LAUNCH_FAILED
        machine.counts["graph"] += 1
        for work in self._ready[ready.value]:
            machine.queue(stream.value, work)
        return 0

    def cuGraphDestroy(self, graph: Any) -> int:
        return 0

    def cuGraphExecDestroy(self, ready: Any) -> int:
        self._ready[ready.value] = []
        return 0
