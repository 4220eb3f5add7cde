"""The parser and the network: ONNX graphs, refused where this release's parser would refuse them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tensorrt.kinds import DataType, Dims, ILogger, NetworkDefinitionCreationFlag, TensorFormat, initialised
from tensorrt.release import OLD, OPSET, REFUSED, STRONG, TYPES, VERSION

_KINDS = {"FLOAT": "FLOAT", "FLOAT16": "HALF", "INT8": "INT8", "INT32": "INT32", "INT64": "INT64", "BOOL": "BOOL",
          "UINT8": "UINT8", "BFLOAT16": "BF16"}  # fmt: skip


class ITensor:
    def __init__(self, value: Any, is_input: bool) -> None:
        kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type)
        self.name: str = value.name
        self.is_network_input, self.is_network_output = is_input, not is_input
        dims = value.type.tensor_type.shape.dim
        self.shape = Dims(d.dim_value if d.HasField("dim_value") else -1 for d in dims)
        self._sizes = [d.dim_value if d.HasField("dim_value") else d.dim_param for d in dims]
        # Before 10 the parser turns 64-bit integers into 32-bit ones.
        self._dtype = DataType["INT32" if OLD and kind == "INT64" else _KINDS[kind]]
        self.allowed_formats = (1 << len(TensorFormat)) - 1

    @property
    def dtype(self) -> Any:
        return self._dtype

    if not STRONG:

        @dtype.setter
        def dtype(self, kind: Any) -> None:
            if not isinstance(kind, DataType):
                raise TypeError(f"expected a DataType, got {kind!r}")
            self._dtype = kind


class INetworkDefinition:
    def __init__(self, flags: int) -> None:
        self._flags = flags
        self.model: Any = None
        self.name = "Unnamed Network 0"
        self._inputs: list[ITensor] = []
        self._outputs: list[ITensor] = []

    def _take(self, model: Any) -> None:
        self.model = model
        self._inputs = [ITensor(value, True) for value in model.graph.input]
        self._outputs = [ITensor(value, False) for value in model.graph.output]

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    @property
    def num_layers(self) -> int:
        return len(self.model.graph.node) if self.model else 0

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]

    def get_output(self, index: int) -> ITensor:
        return self._outputs[index]


class ParserError:
    def __init__(self, text: str) -> None:
        self._text = text

    def desc(self) -> str:
        return self._text

    def code(self) -> Any:
        return "UNSUPPORTED_NODE"

    def node(self) -> int:
        return 0

    def line(self) -> int:
        return 0

    def __str__(self) -> str:
        return self._text


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        initialised(logger, ILogger)
        if OLD and not network._flags & 1 << int(NetworkDefinitionCreationFlag.EXPLICIT_BATCH):
            raise RuntimeError("ONNX networks need NetworkDefinitionCreationFlag.EXPLICIT_BATCH")
        self._network, self._logger = network, logger
        self._errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def clear_errors(self) -> None:
        self._errors.clear()

    def parse_from_file(self, model: str) -> bool:
        if not isinstance(model, str):
            raise TypeError(f"parse_from_file(): incompatible function arguments: {type(model).__name__}")
        if not Path(model).is_file():
            return self._refuse(f"Could not open file {model}")
        try:
            parsed = onnx.load(model)
        except Exception as error:
            return self._refuse(f"Failed to parse ONNX model from file: {model}: {error}")
        for fault in _faults_of(parsed):
            self._refuse(fault)
        if not self._errors:
            self._network._take(parsed)
        return not self._errors

    def _refuse(self, text: str) -> bool:
        self._errors.append(ParserError(text))
        self._logger._error(text)
        return False


def _faults_of(model: Any) -> list[str]:
    found = []
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and not 9 <= opset.version <= OPSET:
            found.append(f"opset {opset.version} is outside 9 to {OPSET} of TensorRT {VERSION}")
    constants = {one.name for one in model.graph.initializer}
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            found.append(f"No importer registered for op: {node.op_type} of domain {node.domain}")
        elif node.op_type in REFUSED or not onnx.defs.has(node.op_type, OPSET):
            found.append(f"No importer registered for op: {node.op_type}")
        elif node.op_type == "ReduceSum" and len(node.input) > 1 and node.input[1] not in constants:
            found.append("ReduceSum: axes must be an initializer")
    for one in model.graph.initializer:
        if TensorProto.DataType.Name(one.data_type) not in TYPES:
            found.append(f"{one.name}: type {TensorProto.DataType.Name(one.data_type)} is not supported")
    return found


def as_built(network: INetworkDefinition, precision: Any, stray: float) -> bytes:
    """The graph as the engine runs it, through ONNX Runtime: weights rounded to the precision, inputs and outputs of
    the types that were asked for. Activations stay float32, so a real engine strays more."""
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    graph = model.graph
    for one in graph.initializer:
        if precision is not None and one.data_type == TensorProto.FLOAT:
            one.CopyFrom(numpy_helper.from_array(_rounded(numpy_helper.to_array(one), precision), one.name))
    types = {DataType.HALF: TensorProto.FLOAT16, DataType.INT32: TensorProto.INT32}
    if not OLD:
        types[DataType.BF16] = TensorProto.BFLOAT16
    before, after = [], []
    for tensor, value in zip(network._inputs, graph.input, strict=True):
        inside = value.type.tensor_type.elem_type
        if tensor.dtype in types and types[tensor.dtype] != inside:
            for node in graph.node:
                node.input[:] = [f"{name}~" if name == value.name else name for name in node.input]
            before.append(helper.make_node("Cast", [value.name], [f"{value.name}~"], to=inside))
            value.type.tensor_type.elem_type = types[tensor.dtype]
    for tensor, value in zip(network._outputs, graph.output, strict=True):
        name = value.name
        cast = tensor.dtype in types and types[tensor.dtype] != value.type.tensor_type.elem_type
        if not cast and not stray:
            continue
        for node in graph.node:
            node.output[:] = [f"{name}~" if one == name else one for one in node.output]
            node.input[:] = [f"{name}~" if one == name else one for one in node.input]
        last = f"{name}~"
        if stray:
            # A pattern that differs from element to element.
            after.append(helper.make_node("Mul", [last, "stray~scale"], [f"{name}~a"]))
            after.append(helper.make_node("Sin", [f"{name}~a"], [f"{name}~b"]))
            after.append(helper.make_node("Mul", [f"{name}~b", "stray~size"], [f"{name}~c"]))
            after.append(helper.make_node("Add", [last, f"{name}~c"], [f"{name}~d"]))
            last = f"{name}~d"
        to = types[tensor.dtype] if cast else value.type.tensor_type.elem_type
        after.append(helper.make_node("Cast", [last], [name], to=to))
        value.type.tensor_type.elem_type = to
    if stray:
        graph.initializer.append(numpy_helper.from_array(np.float32(1e4), "stray~scale"))
        graph.initializer.append(numpy_helper.from_array(np.float32(stray), "stray~size"))
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    return bytes(model.SerializeToString())


def _rounded(array: Any, precision: Any) -> Any:
    if precision is DataType.HALF:
        return array.astype(np.float16).astype(np.float32)
    return (np.ascontiguousarray(array, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
