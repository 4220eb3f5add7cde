"""Stand-in for TensorRT's Python API: the tensor-name calls that Stillwatch makes, with the contract of the real ones.

Engines are the ONNX graphs themselves, run by ONNX Runtime. What the real library refuses is refused in the same way:
False or None and a line to the logger, TypeError from the bindings, RuntimeError where they raise. What it leaves
undefined (no context, a damaged plan, foreign addresses, two threads in one context) raises ContractBroken.
The release is STILLWATCH_SIM_TENSORRT; members that it lacks are absent.
"""

from tensorrt import builder, engine, kinds, network
from tensorrt.faults import faults  # noqa: F401
from tensorrt.release import OLD as _OLD
from tensorrt.release import VERSION as __version__  # noqa: F401

_VALUES = ("float32", "float16", "bfloat16", "int32", "int64", "nptype")
_ABSENT = ("IProgressMonitor", "ExecutionContextAllocationStrategy") if _OLD else ()
for _part in (builder, engine, kinds, network):
    for _name, _thing in vars(_part).items():
        _ours = isinstance(_thing, type) and _thing.__module__.startswith("tensorrt.")
        if (_ours or _name in _VALUES) and _name not in _ABSENT:
            globals()[_name] = _thing
