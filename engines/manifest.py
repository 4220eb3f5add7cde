"""The model folder: one manifest that says what the network is, and the files that it names.

FOLDER/manifest.json       this module
FOLDER/config.json         Hugging Face configuration, for `transformers`
FOLDER/tokenizer.json      of the language model
FOLDER/model.safetensors   every weight, once
FOLDER/*.onnx              graphs without weights; they point into model.safetensors

An imported folder (`engines.importing`) also holds verification.json, what its import compared.
"""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from config.errors import ModelError
from engines import store

MANIFEST = "manifest.json"
GRAPH_FORMAT = 4  # model version of every graph; raised when the names or meanings of inputs and outputs change
REFERENCE = Path(__file__).parent / "reference" / "model"

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
Shape = tuple[int | str, ...]
Positive = Annotated[int, Field(gt=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class GraphFile(BaseModel):
    """One ONNX graph: its file, and name → shape of inputs and outputs (a word in a shape is a size that varies)."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    file: FileName
    inputs: dict[str, Shape]
    outputs: dict[str, Shape]


class Manifest(BaseModel):
    """What `manifest.json` says. `layers`, `heads`, `dim` are the vision tower's; `merge` is the pixel-shuffle factor:
    merge² patches make one token of the language model. `prompt` holds `{image}` before `{question}`; `eos` are the
    tokens that end an answer; `domain` says in words what the model knows. `cache_layout`: layers, keys and values,
    heads, tokens, numbers a head; for ONNX Runtime these are of type `cache`. `files` holds the SHA-256 of further
    files; `select_buckets` the row counts for which TensorRT builds the selective encoder; `yes_no` the slope
    and offset that turn log-odds of yes into a probability, absent where they are taken as they are."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1)]
    family: Literal["idefics3"]
    domain: str
    image_size: Positive
    patch_size: Positive
    grid: tuple[Positive, Positive]
    resize: Literal["stretch", "letterbox", "crop"]
    mean: tuple[float, float, float]
    std: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
    layers: Positive
    heads: Positive
    dim: Positive
    merge: Positive
    position: Literal["absolute", "rope"]
    dtype: Literal["float16", "bfloat16", "float32", "int8"]
    cache_layout: tuple[int, int, int, int, int]
    cache: Literal["float32", "float16"] = "float32"
    graphs: dict[str, GraphFile]
    weights: Annotated[dict[FileName, Sha256], Field(min_length=1)]
    files: dict[FileName, Sha256] = {}
    select_buckets: tuple[Positive, ...] = ()
    prompt: str
    yes_no: tuple[FiniteFloat, FiniteFloat] | None = None
    eos: Annotated[tuple[str, ...], Field(min_length=1)]

    @property
    def tokens(self) -> int:
        """Patches of one picture, T."""
        return self.grid[0] * self.grid[1]

    @property
    def visual_tokens(self) -> int:
        """Tokens of one picture in the language model."""
        return self.tokens // self.merge**2

    @property
    def cache_bytes(self) -> int:
        """Keys and values that ONNX Runtime keeps for a camera: 2 · T · D numbers a layer."""
        return 2 * self.layers * self.tokens * self.dim * {"float32": 4, "float16": 2}[self.cache]

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        side = self.image_size // self.patch_size
        layout = (self.layers, 2, self.heads, self.tokens, self.dim // self.heads)
        expected = [
            ("grid", self.grid, (side, side), self.grid == (side, side)),
            ("merge", self.merge, f"a divisor of {side}", side % self.merge == 0),
            ("heads", self.heads, f"a divisor of dim {self.dim}", self.dim % self.heads == 0),
            ("cache_layout", self.cache_layout, layout, self.cache_layout == layout),
            ("prompt", self.prompt, "`{image}` once, then `{question}` once", _is_prompt(self.prompt)),
            (
                "select_buckets",
                self.select_buckets,
                f"ascending numbers of rows from 1 to {self.tokens}",
                list(self.select_buckets) == sorted(set(self.select_buckets))
                and max(self.select_buckets, default=0) <= self.tokens,
            ),
        ]
        for key, found, wanted, holds in expected:
            if not holds:
                raise ValueError(f"`{key}`: found {found!r}, expected {wanted}")
        return self


def _is_prompt(prompt: str) -> bool:
    both = prompt.count("{image}") == prompt.count("{question}") == 1
    return both and prompt.index("{image}") < prompt.index("{question}")


@dataclass(frozen=True, slots=True)
class Model:
    """A model folder whose manifest holds, whose graphs exist and whose weights have the hashes it names."""

    folder: Path
    manifest: Manifest

    def graph(self, name: str) -> Path:
        """Path of a graph. Raises ModelError when the manifest names no such graph."""
        graph = self.manifest.graphs.get(name)
        if graph is None:
            raise ModelError(
                f"{self.folder / MANIFEST}: key `graphs` holds {', '.join(sorted(self.manifest.graphs))}; expected "
                f"also `{name}`; {_remedy(self.folder)}"
            )
        return self.folder / graph.file


def find_model(name_or_path: str | Path) -> Path:
    """Folder of a model: the name `reference` (the model that comes with Stillwatch), the name of an imported one, or a
    path. A name wins over a folder of the same name in the working directory. Raises ModelError."""
    if name_or_path == "reference":
        return REFERENCE
    if found := store.folder_of(str(name_or_path)):
        return found
    folder = Path(name_or_path).expanduser()
    if not folder.is_dir():
        known = ["reference", *store.names()]
        raise ModelError(
            f"model `{name_or_path}`: found neither a model of that name nor such a folder"
            f"{_nearest(name_or_path, known)}; expected {', '.join(known)} (`stillwatch model list`) or the path of a "
            f"folder with {MANIFEST}"
        )
    return folder


def _nearest(name: str | Path, known: list[str]) -> str:
    folded = {other.casefold(): other for other in known}
    close = difflib.get_close_matches(str(name).casefold(), folded, n=1)
    return f"; did you mean `{folded[close[0]]}`?" if close else ""


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder, without a look at the files it names. Raises ModelError."""
    manifest_file = folder / MANIFEST
    if not folder.is_dir():
        raise ModelError(f"{folder}: found no such folder; expected a model folder with {MANIFEST}")
    try:
        text = manifest_file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ModelError(f"{manifest_file}: not found; expected a model manifest; {_remedy(folder)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{manifest_file}: can't be read ({error}); expected UTF-8 JSON; {_remedy(folder)}") from error
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise ModelError(f"{manifest_file}: {faults(error)}; {_remedy(folder)}") from error


def load_model(folder: Path) -> Model:
    """Read and verify a model folder. Raises ModelError, which names the file, what was found and what was expected."""
    manifest = read_manifest(folder)
    for name, graph in manifest.graphs.items():
        if not (folder / graph.file).is_file():
            raise ModelError(f"{folder / graph.file}: not found; expected the graph `{name}`; {_remedy(folder)}")
    for file, expected in {**manifest.weights, **manifest.files}.items():
        kind = "weights" if file in manifest.weights else "a file"
        if not (folder / file).is_file():
            raise ModelError(
                f"{folder / file}: not found; expected {kind} with SHA-256 {expected}; copy the folder again, whole"
            )
        found = sha256(folder / file)
        if found != expected:
            raise ModelError(
                f"{folder / file}: found SHA-256 {found}, expected {expected}: damaged, or of another version; copy or "
                f"import the model again, or if it was meant to change, {_remedy(folder)}"
            )
    return Model(folder, manifest)


def sha256(file: Path) -> str:
    """Hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _remedy(folder: Path) -> str:
    return f"write manifest and graphs anew with `python -m engines.export {folder}`"


def faults(error: ValidationError) -> str:
    """All faults of a manifest in one line: key, what was found, what was expected."""
    found = []
    for fault in error.errors(include_url=False):
        key = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "missing":
            found.append(f"key `{key}`: not there, expected a value")
        elif fault["type"] == "extra_forbidden":
            found.append(f"key `{key}`: unknown, expected only the keys of this version")
        elif fault["type"] == "json_invalid":
            found.append(f"not JSON ({fault['msg']})")
        elif not key:
            found.append("key " + fault["msg"].removeprefix("Value error, "))
        else:
            found.append(f"key `{key}`: found {fault['input']!r}, expected: {fault['msg']}")
    return "; ".join(found)
