"""Who says what is configured, each over the one before: defaults, the file, the environment, the command line, and
what was sent from afar (the overlay)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from config.document import Document, KeyPath, parse_yaml, read_text
from config.loading import section_at, with_environment
from config.settings import Settings


@dataclass(frozen=True)
class Layers:
    """What this machine says. file: None where there is none. environ: its `STILLWATCH_…` variables count. options: key
    path → (option, value) of the command line. base: what stands in the place of a file."""

    file: Path | None
    environ: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[KeyPath, tuple[str, object]] = field(default_factory=dict)
    base: Document = field(default_factory=lambda: Document("the command line"))

    @classmethod
    def of(cls, settings: Settings) -> Layers:
        """Of settings that were made by a program."""
        return cls(None, base=Document("the settings", settings.model_dump(mode="json", exclude_unset=True)))

    def text(self) -> str:
        """What stands in the file now, empty without one. Raises ConfigError."""
        return "" if self.file is None else read_text(self.file)

    def stages(self, text: str) -> tuple[Document, Document, Document]:
        """The file if this were its text, then with the environment, then with the command line. Raises ConfigError."""
        document = self.base if self.file is None else parse_yaml(text, str(self.file))
        local = with_environment(document, self.environ)
        pinned = local
        for path, (option, value) in self.options.items():
            pinned = pinned.with_value(path, value, option)
        return document, local, pinned

    def document(self, text: str) -> Document:
        """All that this machine says, if this were the text of its file. Raises ConfigError."""
        return self.stages(text)[-1]


def with_overlay(document: Document, overlay: Mapping[str, JsonValue], version: int) -> Document:
    """The document with what was sent from afar over it.

    Sections are merged key by key, lists and values replace. null is the value null where a key of a section allows it,
    and takes away what has a name of its own: a zone, a mask. Raises ConfigError where a value stands for a section.
    """
    for path, value in _leaves(overlay, ()):
        if value is None and section_at(path[:-1]) is None:
            document = document.without(path)
        else:
            document = document.with_value(path, value, f"remote overlay, version {version}")
    return document


def _leaves(values: Mapping[str, JsonValue], path: KeyPath) -> Iterator[tuple[KeyPath, JsonValue]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value
