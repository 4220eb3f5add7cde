"""Stand-in for TensorRT's Python API: the tensor-name calls that Stillwatch makes, with the contract of the real ones.

Engines are the ONNX graphs themselves, run by ONNX Runtime. What the real library refuses is refused in the same way:
False or None and a line to the logger, TypeError from the bindings, RuntimeError where they raise. What it leaves
undefined (no context, a damaged plan, foreign addresses, two threads in one context) raises ContractBroken.
The release is STILLWATCH_SIM_TENSORRT; members that it lacks are absent.
"""

from tensorrt import builder, engine, kinds, network
from tensorrt.faults import faults  # noqa: F401
from tensorrt.release import OLD
from tensorrt.release import VERSION as __version__  # noqa: F401

_ABSENT = {"IProgressMonitor", "ExecutionContextAllocationStrategy"} if OLD else set()
for _part in (builder, engine, kinds, network):
    globals().update((name, thing) for name, thing in vars(_part).items() if name[0].isalpha() and name not in _ABSENT)
