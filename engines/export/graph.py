"""Builds an ONNX graph whose weights stay where they are: initializers are references into `model.safetensors`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as error:
    raise ImportError("exporting a model needs the package onnx: pip install 'stillwatch[import]'") from error

from config.errors import ModelError
from engines.checkpoint import INT8, SCALE, WEIGHTS, Checkpoint
from engines.manifest import GRAPH_FORMAT, GraphFile, Shape

OPSET = 17
MICROSOFT = "com.microsoft"  # domain of ONNX Runtime's own operators
_STORED = {
    "F16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "F32": TensorProto.FLOAT,
    "I8": TensorProto.INT8,
}
_STEPS = 127  # of a row's largest value, when it is rounded to 8 bits


class Graph:
    """Collects nodes in order. Values are named after what they hold; the same calls give the same
    bytes. Stored weights are cast to float32 by nodes that the runtime folds when it loads the graph, as it does every
    other operation on weights alone. integer: multiply by 8-bit weights as they are, with ONNX Runtime's operators;
    else they become float32 like the rest."""

    def __init__(self, name: str, checkpoint: Checkpoint, *, integer: bool = False) -> None:
        self.name = name
        self.checkpoint = checkpoint
        self._integer = integer
        self._codes: dict[str, tuple[str, str]] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._ready: set[str] = set()
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._shapes: tuple[dict[str, Shape], dict[str, Shape]] = ({}, {})

    def input(self, name: str, shape: Shape, dtype: int = TensorProto.FLOAT) -> str:
        self._shapes[0][name] = shape
        self._inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def input_int(self, name: str, shape: Shape) -> str:
        """An input of int64."""
        return self.input(name, shape, TensorProto.INT64)

    def output(self, value: str, shape: Shape, dtype: int = TensorProto.FLOAT) -> None:
        """Declare a value, named when its node was added, as an output."""
        self._shapes[1][value] = shape
        self._outputs.append(helper.make_tensor_value_info(value, dtype, shape))

    def op(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Add a node with one output and return the name of its value."""
        value = name or f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [value], name=value, **attributes))
        return value

    def split(self, x: str, sizes: Sequence[int] | str, axis: int = 0, names: Sequence[str] = ()) -> list[str]:
        """Add a node that cuts x along an axis; the runtime copies the pieces. sizes: known here, or the name of the
        value that holds them, and then the pieces need names."""
        stem = f"split_{len(self._nodes)}"
        values = list(names) or [f"{stem}_{i}" for i in range(len(sizes))]
        lengths = sizes if isinstance(sizes, str) else self.constant(sizes)
        self._nodes.append(helper.make_node("Split", [x, lengths], values, name=stem, axis=axis))
        return values

    def constant(self, value: NDArray[np.generic] | Sequence[int] | float) -> str:
        """A small constant inside the graph; int64 from integers, float32 from floats."""
        array = np.asarray(value)
        array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        name = f"const_{len(self._initializers)}"
        for known, tensor in self._initializers.items():
            if not tensor.external_data and _same(numpy_helper.to_array(tensor), array):
                return known
        self._initializers[name] = numpy_helper.from_array(array, name)
        return name

    def stored(self, name: str, shape: Sequence[int] | None = None) -> str:
        """A reference to a stored parameter as it is, optionally seen in another shape of equal size."""
        int8 = name.endswith((INT8, SCALE)) and name in self.checkpoint
        found = self.checkpoint.tensors[name] if int8 else self.checkpoint.tensor(name)
        if name not in self._initializers:
            tensor = TensorProto(name=name, data_type=_STORED[found.dtype], dims=shape or found.shape)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", WEIGHTS), ("offset", found.offset), ("length", found.length)):
                tensor.external_data.add(key=key, value=str(value))
            self._initializers[name] = tensor
        return name

    def weight(self, name: str, shape: Sequence[int] | None = None) -> str:
        """A stored parameter as float32."""
        if self.checkpoint.is_int8(name):
            values = self.op("Cast", self.stored(name + INT8), to=TensorProto.FLOAT)
            return self.op("Transpose", self.op("Mul", values, self.stored(name + SCALE)), perm=[1, 0])
        stored = self.stored(name, shape)
        if self.checkpoint.tensor(name).dtype == "F32":
            return stored
        cast = f"{name}.float"
        if cast not in self._ready:
            self._ready.add(cast)
            self.op("Cast", stored, name=cast, to=TensorProto.FLOAT)
        return cast

    def linear(self, x: str, *modules: str, name: str | None = None) -> str:
        """x (n, in) through one linear layer, or through several side by side as one matrix product. The stored weight
        is (out, in) as `Gemm` with transB wants it; biases are used where the checkpoint has them."""
        names = [f"{module}.weight" for module in modules]
        integer = self._integer and all(map(self.checkpoint.is_int8, names))
        weights = [] if integer else [self.weight(weight) for weight in names]
        biases = [self.weight(f"{m}.bias") for m in modules if f"{m}.bias" in self.checkpoint]
        if len(biases) not in (0, len(modules)):
            raise ModelError(f"{self.checkpoint.folder / WEIGHTS}: of {', '.join(modules)} only some have a bias")
        if integer:
            product = self._integer_product(x, names)
            return self.op("Add", product, self._joined(biases, axis=0), name=name) if biases else product
        weight = self._joined(weights, axis=0)
        bias = [self._joined(biases, axis=0)] if biases else []
        return self.op("Gemm", x, weight, *bias, name=name, transB=1)

    def _joined(self, values: Sequence[str], axis: int) -> str:
        return values[0] if len(values) == 1 else self.op("Concat", *values, axis=axis)

    def _integer_product(self, x: str, weights: Sequence[str]) -> str:
        """x (n, in) times 8-bit weights. Each row is rounded in steps of its largest value / 127."""
        codes = self._joined([self.stored(name + INT8) for name in weights], axis=1)
        scales = self._joined([self.stored(name + SCALE) for name in weights], axis=0)
        step, middle = self.constant(1 / _STEPS), self._middle()
        if x not in self._codes:
            peak = self.op("ReduceMax", self.op("Abs", x), axes=[1], keepdims=1)
            peak = self.op("Max", peak, self.constant(1e-30))
            self._codes[x] = self.op("QuantizeLinear", self.op("Div", x, peak), step, middle), peak
        rounded, peak = self._codes[x]
        product = self.op("MatMulIntegerToFloat", rounded, codes, step, scales, middle, domain=MICROSOFT)
        return self.op("Mul", product, peak)

    def _middle(self) -> str:
        """The code of zero in unsigned 8 bits."""
        name = "middle"
        self._initializers.setdefault(name, numpy_helper.from_array(np.array(128, np.uint8), name))
        return name

    def layer_norm(self, x: str, module: str, epsilon: float, name: str | None = None) -> str:
        weight, bias = self.weight(f"{module}.weight"), self.weight(f"{module}.bias")
        return self.op("LayerNormalization", x, weight, bias, name=name, axis=-1, epsilon=epsilon)

    @property
    def file(self) -> GraphFile:
        """What the manifest says of the graph."""
        return GraphFile(file=f"{self.name}.onnx", inputs=self._shapes[0], outputs=self._shapes[1])

    def content(self) -> bytes:
        """Content of the file."""
        graph = helper.make_graph(
            self._nodes, self.name, self._inputs, self._outputs, list(self._initializers.values())
        )
        domains = {"", *(node.domain for node in self._nodes)}
        versions = {"": OPSET, MICROSOFT: 1}
        opsets = [helper.make_opsetid(domain, versions[domain]) for domain in sorted(domains)]
        model = helper.make_model(
            graph, producer_name="stillwatch", model_version=GRAPH_FORMAT, opset_imports=opsets, ir_version=8
        )
        return bytes(model.SerializeToString(deterministic=True))


def _same(a: NDArray[np.generic], b: NDArray[np.generic]) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
