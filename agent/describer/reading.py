"""What a vision server answers: chat completions as server-sent events, or as one JSON object.

Lines and fields after the HTML standard (9.2 Server-sent events), read with some patience, for servers differ: an event
counts also when the stream ends without the blank line, `[DONE]` may be missing, an error may come as a JSON object, as
an event named `error` or in a field of that name.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import Any

from config.errors import DescriberError

_LIMIT = 2**20
"""Bytes of a whole answer; thousands of words are far below."""
_NO_JSON = (ValueError, RecursionError)
_LINE_END = re.compile(r"\r\n|\n|\r")


class AnswerReader:
    """Takes the body of an answer in chunks cut anywhere, and gives its words. Raises DescriberError for an answer that
    says it has failed or that is none.

    finish_reason: as the server says (`stop`, `length`), None until it did. done: nothing more will come.
    """

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.done = False
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._size = 0
        self._rest = ""
        self._whole: bool | None = None  # one JSON object, not events; None until something was read
        self._answered = False
        self._event = ""
        self._data: list[str] = []
        self._stray = ""  # the beginning of what is no part of an event

    def feed(self, chunk: bytes) -> list[str]:
        """The words that this chunk completes."""
        self._size += len(chunk)
        if self._size > _LIMIT:
            raise DescriberError(f"the answer is longer than {_LIMIT >> 20} MiB")
        self._rest += self._decoder.decode(chunk)
        if self._whole is None and (start := self._rest.lstrip()):
            self._whole = start.startswith("{")
        if self._whole is not False:
            return []
        held = "\r" if self._rest.endswith("\r") else ""  # its \n may still be on its way
        *lines, rest = _LINE_END.split(self._rest.removesuffix("\r"))
        self._rest = rest + held
        return [word for line in lines for word in self._line(line)]

    def end(self) -> list[str]:
        """The words that are left when the body is over."""
        self._rest += self._decoder.decode(b"", final=True)
        if self._whole:
            self.done = True
            return self._choice(_parsed(self._rest), "message")
        words = [word for line in (*_LINE_END.split(self._rest), "") for word in self._line(line)]
        if not self._answered and self._stray:
            raise DescriberError(f"expected a chat completion, found {error_text(self._stray)[:80]!r}")
        return words

    def _line(self, line: str) -> list[str]:
        if not line:
            event, data = self._event, "\n".join(self._data)
            self._event, self._data = "", []
            return self._dispatch(event, data) if data else []
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._event = value
        elif field == "error":
            self._event, self._data = "error", [value]
        elif field not in ("", "id", "retry"):
            self._stray = (self._stray + line)[:200]
        return []

    def _dispatch(self, event: str, data: str) -> list[str]:
        if self.done:
            return []
        if data.strip() == "[DONE]":
            self.done = True
            return []
        if event == "error":
            raise DescriberError(f"the server broke off: {error_text(data)}")
        return self._choice(_parsed(data), "delta")

    def _choice(self, answer: dict[str, Any], part: str) -> list[str]:
        if answer.get("error") or answer.get("object") == "error":
            raise DescriberError(f"the server broke off: {error_text(json.dumps(answer))}")
        self._answered = True
        choices = answer.get("choices")
        if not isinstance(choices, list):
            raise DescriberError(f"expected a chat completion, found {json.dumps(answer)[:80]}")
        words = []
        for choice in choices[:1]:  # empty in the last chunk of some servers, which tells the usage
            if not isinstance(choice, dict):
                continue
            message = choice.get(part) or choice.get("message") or {}
            words.append(_text(message.get("content") if isinstance(message, dict) else None))
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
        return [word for word in words if word]


def error_text(body: str) -> str:
    """What an error answer says, on one line of at most 200 characters."""
    try:
        found: Any = json.loads(body)
    except _NO_JSON:
        found = body
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(key):
            found = found[key]
    text = found if isinstance(found, str) else json.dumps(found)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= 200 else text[:199] + "…"


def _parsed(data: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except _NO_JSON:
        found = None
    if not isinstance(found, dict):
        raise DescriberError(f"expected a chat completion, found {error_text(data)[:80]!r}")
    return found


def _text(content: object) -> str:
    """Content is a text, or a list of parts of which some are texts."""
    if isinstance(content, list):
        return "".join(_text(part.get("text")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
