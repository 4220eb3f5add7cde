"""Credentials in URLs, hidden wherever a URL is shown."""

from __future__ import annotations

import re

_USERINFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,20}://)[^/?#\s]*@")

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,20}://\S+")
_PARAMETER = re.compile(r"(?P<name>(?:pass(?:word|wd)?|pwd|token|auth|secret|api_?key)=)[^&\s\"']+", re.IGNORECASE)


def redact(text: str) -> str:
    """`rtsp://me:secret@host/x` → `rtsp://***@host/x`, for every URL in a text; so are passwords that many cameras want
    in the path or query (`…/user=me&password=secret`)."""
    return _URL.sub(lambda url: _PARAMETER.sub(r"\g<name>***", url[0]), _USERINFO.sub(r"\g<scheme>***@", text))
