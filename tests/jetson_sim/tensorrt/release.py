"""Which TensorRT the stand-in is: STILLWATCH_SIM_TENSORRT, default 10.3.0, read when the package is imported.

Operators: the ONNX standard less what docs/operators.md of onnx-tensorrt 8.6-GA and 10.1-GA marks N, up to the opset
named there; 10.13 and 11 are held to the table of 10.1, the newest that could be read.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

VERSION = os.environ.get("STILLWATCH_SIM_TENSORRT", "10.3.0")
RELEASE = tuple(int(part) for part in VERSION.split(".")[:2])
Class = TypeVar("Class", bound=type)


def here(since: tuple[int, int] = (0, 0), until: tuple[int, int] = (99, 99)) -> bool:
    """Does this release have what came with `since` and was last seen in `until`?"""
    return since <= RELEASE <= until


def without(**absent: bool) -> Callable[[Class], Class]:
    """Take members away from a class where `absent` says so: who asks for them gets AttributeError."""

    def strip(cls: Class) -> Class:
        for name, gone in absent.items():
            if gone:
                delattr(cls, name)
        return cls

    return strip


OLD = not here((10, 0))
STRONG = here((11, 0))
OPSET = 17 if OLD else 20
_NEVER = (
    "Bernoulli BitShift BlackmanWindow Compress ConcatFromSequence ConvInteger DFT Det DynamicQuantizeLinear "
    "HammingWindow HannWindow MatMulInteger MaxRoiPool MaxUnpool MelWeightMatrix Multinomial NegativeLogLikelihoodLoss "
    "Optional OptionalGetElement OptionalHasElement QLinearConv QLinearMatMul STFT SequenceAt SequenceConstruct "
    "SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap SoftmaxCrossEntropyLoss SplitToSequence "
    "StringNormalizer TfIdfVectorizer Unique"
)
REFUSED = frozenset(
    (
        _NEVER
        + (
            " Hardmax"
            if OLD
            else " AffineGrid BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Col2Im CenterCropPad ImageDecoder "
            "RegexFullMatch StringConcat StringSplit"
        )
    ).split()
)
TYPES = frozenset(("FLOAT FLOAT16 DOUBLE INT8 INT32 INT64 UINT8 BOOL" + ("" if OLD else " BFLOAT16 INT4")).split())
