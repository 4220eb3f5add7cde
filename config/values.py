"""The values a person writes in a configuration: sizes in bytes, references to secrets, polygons, names."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, RootModel, WithJsonSchema
from pydantic_core import PydanticCustomError

from config.errors import ConfigError

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {f"{unit[0]}IB": 1024 ** (i + 1) for i, unit in enumerate(("KB", "MB", "GB", "TB"))}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def parse_bytes(value: object) -> object:
    """`5GB`, `500 MB`, `1GiB` or a plain number → whole bytes. Anything else is refused by the field's own check."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value)
    if match is None or match[2].upper() not in _UNITS:
        raise PydanticCustomError("size", "expected a size such as 500MB or 5GB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _check_polygon(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    x, y = zip(*points, strict=True)
    doubled_area = sum(x[i - 1] * y[i] - x[i] * y[i - 1] for i in range(len(points)))
    if doubled_area == 0:
        raise PydanticCustomError("polygon", "expected a polygon that encloses an area")
    return points


class SecretReference(RootModel[str]):
    """Where a secret is kept: `file:PATH`, `env:NAME` or `credential:NAME` (systemd). The secret is never held."""

    model_config = ConfigDict(frozen=True)
    root: Annotated[str, AfterValidator(lambda text: _check_reference(text))]

    def read(self) -> str:
        """The secret, without the newline at its end. Raises ConfigError when it is not there or empty."""
        kind, _, name = self.root.partition(":")
        if kind == "env":
            secret = os.environ.get(name)
            if not secret:
                raise ConfigError(f"{self.root}: the environment variable is not set or empty")
            return secret
        try:
            secret = self.file().read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise ConfigError(f"{self.root}: can't read the secret: {reason}") from None
        if not secret:
            raise ConfigError(f"{self.root}: the file is empty")
        return secret

    def file(self) -> Path:
        """The file it is kept in, for those who read it themselves. Raises ConfigError when it is in no file."""
        kind, _, name = self.root.partition(":")
        if kind == "file":
            return Path(name)
        if kind == "env":
            raise ConfigError(f"{self.root}: expected file:PATH or credential:NAME: this can only be read from a file")
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        if not directory:
            raise ConfigError(f"{self.root}: systemd gave no credentials; add LoadCredential={name}:… to the unit")
        return Path(directory) / name


def _check_reference(text: str) -> str:
    kind, _, name = text.partition(":")
    if kind not in ("file", "env", "credential") or not name or (kind == "credential" and "/" in name):
        raise PydanticCustomError(
            "secret", "expected a reference to the secret, not the secret: file:PATH, env:NAME or credential:NAME"
        )
    return text


Bytes = Annotated[
    int,
    BeforeValidator(parse_bytes),
    Field(gt=0),
    WithJsonSchema({"type": ["integer", "string"], "pattern": r"^\s*\d+(\.\d+)?\s*([KMGTkmgt]?[iI]?[bB])?\s*$"}),
]
Coordinate = Annotated[float, Field(ge=0, le=65535, allow_inf_nan=False)]
Point = tuple[Coordinate, Coordinate]
Polygon = Annotated[list[Point], Field(min_length=3), AfterValidator(_check_polygon)]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
