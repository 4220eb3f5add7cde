"""A Hugging Face folder of the Idefics3 / SmolVLM family: settings, and where weights lie.

Only the header of `model.safetensors` is read (`engines.safetensors`); the graphs point into the file itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from config.errors import ModelError
from engines.safetensors import StoredTensor, read_header

WEIGHTS = "model.safetensors"
FAMILIES = ("idefics3", "smolvlm")
FLOATS = ("F16", "BF16", "F32")
INT8, SCALE = ".int8", ".scale"
"""Ends of the names of the two tensors that stand for a weight (out, in) of 8 bits: codes (in, out), scales (out,)."""


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
    """Rotary positions. `linear` and `llama3` stretch them for contexts longer than those of the first training."""

    rope_type: Annotated[
        Literal["default", "linear", "llama3"], Field(validation_alias=AliasChoices("rope_type", "type"))
    ] = "default"
    rope_theta: float | None = None
    factor: Annotated[float | None, Field(gt=0)] = None
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    original_max_position_embeddings: int | None = None

    @model_validator(mode="after")
    def _complete(self) -> Rope:
        needed = {
            "default": (),
            "linear": ("factor",),
            "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
        }
        absent = [key for key in needed[self.rope_type] if getattr(self, key) is None]
        if absent:
            raise ValueError(f"rope_type `{self.rope_type}` also needs {', '.join(absent)}")
        return self


class TextConfig(_Config):
    model_type: Literal["llama"] = "llama"
    hidden_size: int = 4096
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    intermediate_size: int = 11_008
    vocab_size: int = 32_000
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: Literal["silu"] = "silu"
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    rope_scaling: Rope | None = None
    rope_parameters: Rope | None = None
    rope_interleaved: Literal[False] = False
    qk_layer_norms: Literal[False] = False
    use_resampler: Literal[False] = False
    attention_bias: bool = False
    mlp_bias: bool = False
    eos_token_id: int | list[int] | None = None

    @property
    def kv_heads(self) -> int:
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def head_size(self) -> int:
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def rope(self) -> Rope:
        """The rotary positions, whichever of the ways to write them the configuration uses."""
        rope = self.rope_parameters or self.rope_scaling or Rope()
        return rope if rope.rope_theta else rope.model_copy(update={"rope_theta": self.rope_theta})


class ModelConfig(_Config):
    model_type: Literal["idefics3", "smolvlm"]
    vision_config: VisionConfig
    text_config: TextConfig
    scale_factor: int = 2
    image_token_id: int = 128_257
    tie_word_embeddings: bool = False
    eos_token_id: int | list[int] | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder that has been read. `tensors`: by the parameter's name in `transformers`."""

    folder: Path
    config: ModelConfig
    tensors: dict[str, StoredTensor]

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """Read configuration and weight header. Raises ModelError."""
        return cls(folder, read_config(folder / "config.json"), read_header(folder / WEIGHTS))

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def is_int8(self, name: str) -> bool:
        """Is the weight `name` stored as 8-bit codes and scales?"""
        return name + INT8 in self.tensors and name + SCALE in self.tensors

    def tensor(self, name: str) -> StoredTensor:
        """Raises ModelError when the file holds no such parameter."""
        if name not in self.tensors:
            raise ModelError(
                f"{self.folder / WEIGHTS}: holds no parameter `{name}`; expected the names of "
                "Idefics3ForConditionalGeneration; save the checkpoint again with `save_pretrained`"
            )
        found = self.tensors[name]
        if found.dtype not in FLOATS:
            raise ModelError(
                f"{self.folder / WEIGHTS}: parameter `{name}` is stored as {found.dtype}; expected one of "
                f"{', '.join(FLOATS)}: take a checkpoint that isn't quantised"
            )
        return found


def read_config(file: Path) -> ModelConfig:
    """Settings of a checkpoint. Raises ModelError, which names the architecture when it's one that can't be run."""
    content = read_json(file)
    kind = content.get("model_type")
    if kind not in FAMILIES:
        named = ", ".join(map(str, content.get("architectures") or ["no architecture"]))
        raise ModelError(
            f"{file}: key `model_type`: found {kind!r} ({named}); expected a checkpoint of the Idefics3 or SmolVLM "
            f"family (`model_type` {' or '.join(FAMILIES)}): SmolVLM, SmolVLM2, Idefics3"
        )
    try:
        return ModelConfig.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(
            f"key `{'.'.join(map(str, fault['loc']))}`: found {fault['input']!r}: {fault['msg']}"
            for fault in error.errors(include_url=False)
        )
        raise ModelError(f"{file}: {faults}; expected a checkpoint of the Idefics3 or SmolVLM family") from error


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
