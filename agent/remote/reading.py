"""From hostile bytes to a document: limits first, then JSON, then the model. What is wrong is `Refused` with 400."""

from __future__ import annotations

import json
import math
import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from agent.applying.contract import Refused
from agent.remote.documents import Envelope, SignedDocument

MAX_BYTES = 128 * 1024
"""Of a whole envelope."""
_ENVELOPE_DEPTH = 2
_DOCUMENT_DEPTH = 12
_MOST_ERRORS = 20
# A string to its end, or to the end of all: each byte is looked at once, whatever the quotes.
_TOKENS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[][{}]', re.DOTALL)

M = TypeVar("M", bound=BaseModel)


def read_envelope(payload: bytes) -> Envelope:
    """Raises Refused 400."""
    if len(payload) > MAX_BYTES:
        raise refused(400, "", f"expected at most {MAX_BYTES} bytes, found more")
    return _read(Envelope, payload, _ENVELOPE_DEPTH)


def read_signed(document: bytes) -> SignedDocument:
    """To be called when the signature holds. Raises Refused 400."""
    return _read(SignedDocument, document, _DOCUMENT_DEPTH)


def id_of(payload: bytes) -> str | None:
    """What a document that is no envelope calls itself, None where that can't be told within the limits."""
    try:
        if len(payload) > MAX_BYTES:
            return None
        _check_depth(payload, _DOCUMENT_DEPTH)
        found = json.loads(payload.decode())
    except (Refused, ValueError, RecursionError):
        return None
    name = found.get("id") if isinstance(found, dict) else None
    return name if isinstance(name, str) and 0 < len(name) <= 64 else None


def refused(code: int, path: str, message: str) -> Refused:
    """With one reason."""
    return Refused(code, ((path, message),))


def _read(model: type[M], payload: bytes, depth: int) -> M:
    _check_depth(payload, depth)
    try:
        # pydantic's reader passes over keys that are given twice; two readers could then see two documents.
        json.loads(payload.decode(), object_pairs_hook=_once, parse_float=_finite, parse_constant=_finite)
        return model.model_validate_json(payload)
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_input=False)[:_MOST_ERRORS]
        raise Refused(400, tuple((".".join(map(str, m["loc"]))[:200], m["msg"][:300]) for m in mistakes)) from None
    except (ValueError, RecursionError) as error:
        raise refused(400, "", f"not JSON: {str(error)[:200]}") from None


def _check_depth(payload: bytes, limit: int) -> None:
    depth = 0
    for token in _TOKENS.finditer(payload):
        first = token[0][:1]
        depth += (first in b"[{") - (first in b"]}")
        if depth > limit:
            raise refused(400, "", f"expected at most {limit} levels, found more")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r:.80} is given twice")
    return found


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text:.40} is no number")
    return number
