"""From a document and the environment to valid settings, or to an error that names file, line, key and remedy."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, RootModel, ValidationError
from pydantic_core import ErrorDetails

from config.document import Document, KeyPath, dotted, read_yaml
from config.errors import ConfigError, InvalidConfig, Mistake
from config.redact import redact
from config.settings import Settings
from config.values import SecretReference

PREFIX = "STILLWATCH_"
_MODEL_KEYS = frozenset(Settings.model_fields)


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """Settings of a YAML file, overridden by `STILLWATCH_A__B` variables. Raises ConfigError, one line per mistake."""
    return validate(with_environment(read_yaml(path), environ))


def with_environment(document: Document, environ: Mapping[str, str]) -> Document:
    """The document with every `STILLWATCH_A__B=value` set at a.b. Values are read as YAML, case of names is ignored.

    A variable without `__` counts only when it names a key of the top level: the prefix is not ours alone.
    """
    for name in sorted(environ):
        if not name.startswith(PREFIX):
            continue
        parts = [part.lower() for part in name[len(PREFIX) :].split("__")]
        if not all(parts) or (len(parts) == 1 and parts[0] not in _MODEL_KEYS):
            continue
        document = document.with_value(_spelled(document, parts), _value(environ[name]), name)
    return document


def validate(document: Document) -> Settings:
    """Settings of a document. Raises InvalidConfig with every mistake and its place."""
    try:
        return Settings.model_validate_json(json.dumps(document.data))
    except ValidationError as error:
        mistakes = error.errors(include_url=False)
        as_text = _numbers_meant_as_text(document, mistakes)
        if as_text is not None:
            return validate(as_text)
        raise InvalidConfig(tuple(_mistake(document, mistake) for mistake in mistakes)) from None


def shown(settings: Settings) -> dict[str, Any]:
    """Settings as plain data for people: credentials in URLs hidden, secrets as the reference to them."""
    return redacted(settings.model_dump(mode="json", exclude_none=True))  # type: ignore[no-any-return]


def redacted(value: Any) -> Any:
    """Plain data with the credentials in its URLs hidden."""
    if isinstance(value, dict):
        return {key: redacted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [redacted(item) for item in value]
    return redact(value) if isinstance(value, str) else value


def check_secrets(settings: Settings) -> None:
    """Read every secret once. Raises ConfigError for the first that can't be had."""
    for key, reference in secrets(settings):
        try:
            reference.read()
        except ConfigError as error:
            raise ConfigError(f"{key}: {error}") from None


def secrets(settings: Settings) -> list[tuple[str, SecretReference]]:
    """Every reference to a secret, with its key."""
    return [(dotted(path), reference) for path, reference in _secrets(settings, ())]


def json_schema() -> dict[str, Any]:
    return Settings.model_json_schema() | {"$schema": "https://json-schema.org/draft/2020-12/schema"}


def section_at(path: KeyPath) -> type[BaseModel] | None:
    """The section whose keys stand under `path`, or None where any name may stand (camera ids, zone names)."""
    annotation: Any = Settings
    for part in path:
        if _is_section(annotation):
            found = annotation.model_fields.get(str(part))
            annotation = None if found is None else _without_none(found.annotation)
        else:
            arguments = get_args(annotation)
            annotation = _without_none(arguments[-1]) if arguments else None
    return annotation if _is_section(annotation) else None


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel) and not issubclass(annotation, RootModel)


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, UnionType):
        return next(a for a in get_args(annotation) if a is not type(None))
    return annotation


def _spelled(document: Document, parts: list[str]) -> KeyPath:
    """Lower-case names → the names as the document spells them (camera ids may have capitals)."""
    spelled: list[str | int] = []
    data: Any = document.data
    for part in parts:
        keys = data if isinstance(data, dict) else {}
        key = next((k for k in keys if k.lower() == part), part)
        spelled.append(key)
        data = keys.get(key)
    return tuple(spelled)


def _value(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return text
    return text if value is None else value


def _numbers_meant_as_text(document: Document, mistakes: list[ErrorDetails]) -> Document | None:
    """A variable has no quotes, so `STILLWATCH_DEVICE__NAME=12` must mean the text; None when that explains nothing."""
    changed = None
    for mistake in mistakes:
        origin = document.origin(mistake["loc"])
        if mistake["type"] == "string_type" and origin.startswith(PREFIX) and mistake["loc"] in document.origins:
            changed = (changed or document).with_value(mistake["loc"], str(mistake["input"]), origin)
    return changed


def _mistake(document: Document, mistake: ErrorDetails) -> Mistake:
    about_key = mistake["loc"][-1:] == ("[key]",) and mistake["type"] != "extra_forbidden"  # a key may be named so
    path = mistake["loc"][:-1] if about_key else mistake["loc"]
    return Mistake(dotted(path), document.origin(path), _sentence(path, mistake, about_key))


def _sentence(path: KeyPath, mistake: ErrorDetails, about_key: bool) -> str:
    kind, found = mistake["type"], mistake["input"]
    section = section_at(path[:-1])
    if kind == "extra_forbidden" and section is not None:
        known = list(section.model_fields)
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        return "unknown key; " + (f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}")
    if kind == "missing":
        return "missing"
    if about_key:
        return "a name has 1 to 64 letters, digits, _ or -"
    wording = _WORDING.get(kind, mistake["msg"][:1].lower() + mistake["msg"][1:])
    secret = section is not None and section.model_fields[str(path[-1])].annotation in _SECRET_KINDS
    return wording if secret else f"{wording}, found {_brief(found)}"


_SECRET_KINDS = (SecretReference, SecretReference | None)
_WORDING = {
    "string_type": "expected text (put it in quotes)",
    "int_type": "expected a whole number",
    "float_type": "expected a number",
    "dict_type": "expected keys and values",
    "model_type": "expected keys and values",
    "model_attributes_type": "expected keys and values",
    "list_type": "expected a list",
    "tuple_type": "expected a point [x, y]",
    "string_pattern_mismatch": "expected letters, digits, _ or - only",
}


def _brief(value: object) -> str:
    text = redact(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= 80 else text[:77] + "…"


def _secrets(value: object, path: KeyPath) -> list[tuple[KeyPath, SecretReference]]:
    if isinstance(value, SecretReference):
        return [(path, value)]
    if isinstance(value, BaseModel):
        items = [(name, getattr(value, name)) for name in type(value).model_fields]
    elif isinstance(value, dict):
        items = list(value.items())
    else:
        items = []
    return [secret for key, item in items for secret in _secrets(item, (*path, key))]
