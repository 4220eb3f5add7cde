"""What differs between TensorRT releases, as a table; everything else is the same code.

Read in the sources of the Python bindings 8.6, 10.3, 10.13 and 11.1, and checked against the real binding wheels 10.3,
10.13 and 11.4 (tests/test_tensorrt_bindings.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from config.errors import EngineFault


@dataclass(frozen=True, slots=True)
class Release:
    """Differences that concern us.

    explicit_batch: networks from ONNX need the EXPLICIT_BATCH flag. precision_flags: the builder chooses precisions
    within BuilderFlags, and inputs and outputs may be given a type; without, all types are the graph's. bf16: there is
    BuilderFlag.BF16. int64: int64 inputs stay so; before, the parser turns them into int32. own_scratch: contexts can
    work in memory that we give them, so that those of one encoder share it. shared_profiles: several contexts may use
    one profile; before, only with a preview feature. progress: IProgressMonitor.
    """

    since: tuple[int, int]
    explicit_batch: bool
    precision_flags: bool
    bf16: bool
    int64: bool
    own_scratch: bool
    shared_profiles: bool
    progress: bool


TABLE = (
    Release(
        (8, 6),
        explicit_batch=True,
        precision_flags=True,
        bf16=False,
        int64=False,
        own_scratch=False,
        shared_profiles=False,
        progress=False,
    ),
    Release(
        (10, 0),
        explicit_batch=False,
        precision_flags=True,
        bf16=True,
        int64=True,
        own_scratch=True,
        shared_profiles=True,
        progress=True,
    ),
    Release(
        (11, 0),
        explicit_batch=False,
        precision_flags=False,
        bf16=False,
        int64=True,
        own_scratch=True,
        shared_profiles=True,
        progress=True,
    ),
)


def release_of(version: str) -> Release:
    """The row for `tensorrt.__version__`. Raises EngineFault for one that is too old."""
    try:
        major, minor = (int(part) for part in version.split(".")[:2])
    except ValueError:
        raise EngineFault(f"TensorRT calls itself {version!r}, expected a version such as 10.3.0") from None
    for row in reversed(TABLE):
        if (major, minor) >= row.since:
            return row
    raise EngineFault(
        f"TensorRT {version} is too old: its parser knows no LayerNormalization; expected 8.6 or later, which comes "
        "with JetPack 6"
    )
