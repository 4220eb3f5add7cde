"""Credentials in URLs, hidden wherever a URL is shown."""

from __future__ import annotations

import re

_USERINFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^/?#\s]*@")


def redact(text: str) -> str:
    """`rtsp://me:secret@host/x` → `rtsp://***@host/x`, for every URL in a text."""
    return _USERINFO.sub(r"\g<scheme>***@", text)
