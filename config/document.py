"""A configuration as it was written: plain data, and for every key the place it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from config.errors import ConfigError

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """data: nested dicts, lists and scalars. origins: key path → where it was written (`file.yaml:12`, `--source`,
    `STILLWATCH_MODEL`). name: what to blame for a key that is nowhere."""

    name: str
    data: dict[str, Any] = field(default_factory=dict)
    origins: Mapping[KeyPath, str] = field(default_factory=dict)

    def origin(self, path: KeyPath) -> str:
        """The place of the deepest part of `path` that was written."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.origins:
                return self.origins[path[:end]]
        return self.name

    def holds(self, path: KeyPath) -> bool:
        """Whether a value was written for this key, alone or with the section around it."""
        data: Any = self.data
        for part in path:
            if not isinstance(data, dict) or part not in data:
                return False
            data = data[part]
        return True

    def without(self, path: KeyPath) -> Document:
        """A copy in which this key was never written."""
        data = _copy(self.data)
        section: Any = data
        for key in path[:-1]:
            section = section.get(key) if isinstance(section, dict) else None
        if isinstance(section, dict):
            section.pop(path[-1], None)
        origins = {p: o for p, o in self.origins.items() if p[: len(path)] != path}
        return Document(self.name, data, origins)

    def with_value(self, path: KeyPath, value: object, origin: str) -> Document:
        """A copy with one value set; sections on the way are made. Raises ConfigError when one is no section."""
        data = _copy(self.data)
        section = data
        for depth, key in enumerate(path[:-1], start=1):
            below = section.setdefault(key, {})
            if below is None:
                below = section[key] = {}
            if not isinstance(below, dict):
                raise ConfigError(f"{origin}: {dotted(path[:depth])} holds a value, not keys")
            section = below
        section[path[-1]] = value
        origins = {p: o for p, o in self.origins.items() if p[: len(path)] != path}
        return Document(self.name, data, origins | {path: origin})


def dotted(path: KeyPath) -> str:
    return ".".join(str(part) for part in path)


def read_yaml(path: Path) -> Document:
    """The document in a YAML file. Raises ConfigError with file and line for anything that is not plain YAML."""
    return parse_yaml(read_text(path), str(path))


def read_text(path: Path) -> str:
    """What stands in a configuration file. Raises ConfigError."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise ConfigError(f"{path}: can't read the configuration: {error.strerror}") from None


def parse_yaml(text: str, name: str) -> Document:
    """The document in a YAML text that came from the file `name`. Raises ConfigError as `read_yaml` does."""
    origins: dict[KeyPath, str] = {}
    try:
        loader = _Loader(text)
    except yaml.YAMLError as error:  # a character that YAML doesn't allow
        raise ConfigError(f"{name}: not valid YAML: {error}") from None
    try:
        root = loader.get_single_node()
        data = {} if root is None else _build(loader, root, (), origins, name, frozenset())
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{name}:{line}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not valid YAML: {error}") from None
    finally:
        loader.dispose()
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{name}:1: expected keys and values (`cameras: …`), found {type(data).__name__}")
    return Document(name, data, origins)


class _Loader(yaml.SafeLoader):
    """YAML's safe types without dates: `2024-01-01` stays text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _build(
    loader: _Loader,
    node: yaml.Node,
    path: KeyPath,
    origins: dict[KeyPath, str],
    name: str,
    above: frozenset[int],
) -> Any:
    if id(node) in above:
        raise ConfigError(f"{name}:{node.start_mark.line + 1}: {dotted(path)}: an alias that contains itself")
    above |= {id(node)}
    if isinstance(node, yaml.MappingNode):
        _refuse_duplicates(loader, node, path, name)
        loader.flatten_mapping(node)
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = _key(loader, key_node, path, name)
            below = (*path, key)
            origins[below] = f"{name}:{key_node.start_mark.line + 1}"
            mapping[key] = _build(loader, value_node, below, origins, name, above)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            below = (*path, index)
            origins[below] = f"{name}:{item.start_mark.line + 1}"
            items.append(_build(loader, item, below, origins, name, above))
        return items
    value = loader.construct_object(node)
    if not isinstance(value, str | int | float | bool | None):
        raise ConfigError(f"{name}:{node.start_mark.line + 1}: {dotted(path)}: {node.tag} values are not used here")
    return value


def _key(loader: _Loader, node: yaml.Node, path: KeyPath, name: str) -> str:
    key = loader.construct_object(node) if isinstance(node, yaml.ScalarNode) else None
    if not isinstance(key, str):
        where = f" under {dotted(path)}" if path else ""
        raise ConfigError(f"{name}:{node.start_mark.line + 1}: a key{where} is not text; put it in quotes")
    return key


def _refuse_duplicates(loader: _Loader, node: yaml.MappingNode, path: KeyPath, name: str) -> None:
    seen: dict[str, int] = {}
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = _key(loader, key_node, path, name)
        line = key_node.start_mark.line + 1
        if key in seen:
            raise ConfigError(f"{name}:{line}: {dotted((*path, key))}: given twice, first in line {seen[key]}")
        seen[key] = line


def _copy(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _copy(value) for key, value in data.items()}
    return [_copy(item) for item in data] if isinstance(data, list) else data
