"""A Hugging Face folder of the Idefics3 / SmolVLM family as the exporter reads it: settings, and where weights lie.

Only the header of `model.safetensors` is read; the graphs point into the file itself.
Format: 8 bytes little-endian header length, JSON {name: {dtype, shape, data_offsets}}, then the data
(https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from config.errors import ModelError

WEIGHTS = "model.safetensors"


class _Config(BaseModel):
    """Keys that the graphs depend on; what is absent has the value that `transformers` gives it."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class VisionConfig(_Config):
    hidden_size: int = 1152
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 16
    num_channels: Literal[3] = 3
    image_size: int = 224
    patch_size: int = 32
    hidden_act: Literal["gelu_pytorch_tanh", "gelu"] = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6


class Rope(_Config):
    rope_type: Literal["default"] = "default"
    rope_theta: float = 10_000.0


class TextConfig(_Config):
    model_type: Literal["llama"] = "llama"
    hidden_size: int = 4096
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: Literal["silu"] = "silu"
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    rope_scaling: Rope | None = None
    rope_parameters: Rope | None = None
    eos_token_id: int | list[int] | None = None

    @property
    def kv_heads(self) -> int:
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def head_size(self) -> int:
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def theta(self) -> float:
        return self.rope_parameters.rope_theta if self.rope_parameters else self.rope_theta


class ModelConfig(_Config):
    model_type: Literal["idefics3", "smolvlm"]
    vision_config: VisionConfig
    text_config: TextConfig
    scale_factor: int = 2
    image_token_id: int = 128_257
    tie_word_embeddings: bool = False
    eos_token_id: int | list[int] | None = None


class _Entry(BaseModel):
    dtype: Literal["F16", "BF16", "F32"]
    shape: tuple[int, ...]
    data_offsets: tuple[int, int] = Field(min_length=2)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of the weight file: dtype (`F16`, `BF16`, `F32`), shape, and the bytes [offset, offset + length)."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder that has been read. `tensors`: by the parameter's name in `transformers`."""

    folder: Path
    config: ModelConfig
    tensors: dict[str, StoredTensor]

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """Read configuration and weight header. Raises ModelError."""
        try:
            config = ModelConfig.model_validate(read_json(folder / "config.json"))
        except ValidationError as error:
            faults = "; ".join(
                f"key `{'.'.join(map(str, fault['loc']))}`: found {fault['input']!r}: {fault['msg']}"
                for fault in error.errors(include_url=False)
            )
            raise ModelError(
                f"{folder / 'config.json'}: {faults}; expected a checkpoint of the Idefics3 or SmolVLM family"
            ) from error
        return cls(folder, config, _read_header(folder / WEIGHTS))

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def tensor(self, name: str) -> StoredTensor:
        """Raises ModelError when the file holds no such parameter."""
        if name not in self.tensors:
            raise ModelError(
                f"{self.folder / WEIGHTS}: holds no parameter `{name}`; expected the names of "
                "Idefics3ForConditionalGeneration; save the checkpoint again with `save_pretrained`"
            )
        return self.tensors[name]


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object. Raises ModelError."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{file}: not found; expected a Hugging Face checkpoint folder") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: can't be read ({error}); expected UTF-8 JSON") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file}: found {type(content).__name__}, expected a JSON object")
    return content


def _read_header(file: Path) -> dict[str, StoredTensor]:
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size))
        header.pop("__metadata__", None)
        entries = {name: _Entry.model_validate(entry) for name, entry in header.items()}
    except FileNotFoundError:
        raise ModelError(f"{file}: not found; expected all weights in this one file, not in shards") from None
    except (OSError, ValueError, AttributeError, OverflowError, MemoryError) as error:
        raise ModelError(f"{file}: not a safetensors file of 16- or 32-bit floats ({error})") from error
    start = 8 + size
    return {
        name: StoredTensor(e.dtype, e.shape, start + e.data_offsets[0], e.data_offsets[1] - e.data_offsets[0])
        for name, e in entries.items()
    }
