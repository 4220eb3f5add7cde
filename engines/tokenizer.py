"""Text to token ids and back, with the model folder's `tokenizer.json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tokenizers

from config.errors import ModelError

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class Tokenizer:
    """The tokenizer of one model. Raises ModelError when the file can't be used."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception
            raise ModelError(
                f"{file}: can't be read ({error}); expected a tokenizer of the `tokenizers` library; copy the model's "
                "tokenizer.json beside the manifest"
            ) from error
        added = self._tokenizer.get_added_tokens_decoder().values()
        self._special = tuple(token.content for token in added if token.special)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, special tokens in it and those that the tokenizer itself adds (such as a start) included."""
        return list(self._tokenizer.encode(text).ids)

    def words(self, text: str) -> list[int]:
        """Ids of a text alone: nothing is added."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: list[int]) -> str:
        """Text of ids, special tokens left out."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def id(self, token: str, *, why: str = "the manifest's family needs it") -> int:
        """Id of one token. Raises ModelError, which says why it's needed, when the tokenizer doesn't know it."""
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise ModelError(f"{self._file}: holds no token `{token}`; expected it, as {why}")
        return int(found)

    def without_special(self, text: str) -> str:
        """The text with every special token taken out: what a person writes can't open a turn or claim an image."""
        before = None
        while before != text:  # what is left around a token may form another one
            before = text
            for token in self._special:
                text = text.replace(token, "")
        return text


class TextStream:
    """Turns ids that come one at a time into pieces of text. A character whose bytes are spread over several tokens is
    held back until it's whole; all pieces together are exactly `decode` of all ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._context = 0  # ids before this no longer influence the text to come
        self._shown = 0  # ids before this have been given out

    def push(self, token: int) -> str:
        """The text that this token completes; empty when it completes none."""
        self._ids.append(token)
        piece = self.rest()
        if not piece or piece.endswith(_INCOMPLETE):
            return ""
        self._context, self._shown = self._shown, len(self._ids)
        return piece

    def rest(self) -> str:
        """What has been held back. At the end of an answer it's all that remains, complete or not."""
        before = self._tokenizer.decode(self._ids[self._context : self._shown])
        return self._tokenizer.decode(self._ids[self._context :])[len(before) :]


class StopStrings:
    """Ends a text before the first stop string that is complete in it; of several that end together, before the
    longest. What may yet become one is held back, so no part of it is ever shown, however the text is cut in pieces."""

    def __init__(self, stops: Sequence[str] = ()) -> None:
        if isinstance(stops, str) or not all(stops):
            raise ValueError(f"stop strings: found {stops!r}, expected several texts, none of them empty")
        self._stops = tuple(stops)
        self._held = ""

    def push(self, piece: str) -> tuple[str, bool]:
        """The text that can be shown now, and whether it ends here."""
        text = self._held + piece
        ends = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        if ends:
            self._held = ""
            return text[: min(ends)[1]], True
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held], False

    def rest(self) -> str:
        """What has been held back, when no more is to come."""
        return self._held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of the text that begins the stop string without completing it."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
