"""One vision server over HTTP: `POST /chat/completions`, streamed, and `GET /models`.

Nothing of the environment is used (no proxies, no .netrc) and no redirect is followed: pictures go to the configured
address or nowhere.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx2

from agent import __version__
from agent.describer.reading import AnswerReader, error_text
from config.errors import ConfigError, DescriberError
from config.redact import redact

_CONNECT_S = 5.0
_PAUSE_S = 15.0
"""Between two pieces of an answer that has begun. The first may take as long as the whole: the picture is read then."""
_LAST_WORDS_S = 1.0
"""For what may come after the end of the text: then the server isn't cut off in mid-sentence."""
_LONGEST_WAIT_S = 3600.0
_ERROR_BYTES = 65536
_PASSING = (408, 425, 429)
"""Of the 4xx those that say nothing about the request."""


def server_name(url: str) -> str:
    """`host` or `host:port`, all that is shown of an address."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{parts.port}" if parts.port else str(host)


class ChatServer:
    """For one event loop. key: sent as bearer token. Every failure is a DescriberError that begins with the server's
    name and never holds the key. Raises ConfigError for a key that can't be sent."""

    def __init__(self, url: str, key: str | None = None) -> None:
        if key is not None and not (key.isascii() and key.isprintable()):
            raise ConfigError("describer.key: expected plain ASCII letters, digits and signs on one line")
        self.name = server_name(url)
        self._key = key
        headers = {"User-Agent": f"stillwatch/{__version__}"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        try:
            self._http = httpx2.AsyncClient(
                base_url=url + "/",
                headers=headers,
                timeout=httpx2.Timeout(
                    None, connect=_CONNECT_S
                ),  # how long an answer may take is the caller's business
                verify=ssl.create_default_context(),
                trust_env=False,
                follow_redirects=False,
            )
        except httpx2.InvalidURL as error:
            raise ConfigError(f"describer.url: {redact(url):.80}: {error}") from None

    async def answer(self, request: dict[str, Any], say: Callable[[str], None]) -> None:
        """Ask, and `say` each piece of text as it comes. Returns when the answer is whole. Raises DescriberError."""
        reader = AnswerReader()
        said = False
        try:
            async with self._http.stream("POST", "chat/completions", json=request) as response:
                if response.status_code != 200:
                    raise await _refusal(response)
                async for words in _pieces(response, reader):
                    for word in words:
                        say(word)
                        said = said or bool(word.strip())
        except httpx2.HTTPError as error:
            if reader.finish_reason is None:
                raise self._fault(_reason(error)) from None
        except asyncio.TimeoutError:
            if reader.finish_reason is None:
                raise self._fault(f"sent nothing for {_PAUSE_S:g} s in mid-answer") from None
        except DescriberError as error:
            raise self._told(error) from None
        if reader.finish_reason is None and not reader.done:
            raise self._fault("the answer ends in the middle")
        if reader.finish_reason == "length":
            raise WordsMissing(f"{self.name}: the answer is longer than describer.max_tokens")
        if not said:
            raise WordsMissing(f"{self.name}: an answer without words ({reader.finish_reason or 'no reason given'})")

    async def models(self) -> list[str] | None:
        """Names of the models that it serves; None when it answers but doesn't tell. Raises DescriberError."""
        try:
            response = await self._http.get("models")
            if response.status_code in (404, 405, 501):
                return None
            if response.status_code != 200:
                raise await _refusal(response)
            listed = response.json()["data"]
            return [str(model["id"]) for model in listed]
        except httpx2.HTTPError as error:
            raise self._fault(_reason(error)) from None
        except DescriberError as error:
            raise self._told(error) from None
        except (ValueError, KeyError, TypeError):
            return None

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> ChatServer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _told(self, error: DescriberError) -> DescriberError:
        return self._fault(str(error), permanent=error.permanent, retry_after_s=error.retry_after_s)

    def _fault(self, reason: str, *, permanent: bool = False, retry_after_s: float = 0.0) -> DescriberError:
        if self._key:
            reason = reason.replace(self._key, "***")
        return DescriberError(f"{self.name}: {redact(reason)}", permanent=permanent, retry_after_s=retry_after_s)


class WordsMissing(DescriberError):
    """The server works; this answer is empty or not whole."""


async def _refusal(response: httpx2.Response) -> DescriberError:
    status = response.status_code
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _ERROR_BYTES:
            break
    told = error_text(body.decode("utf-8", "replace"))
    hint = "; does describer.url end as the server wants it, mostly in /v1?" if status in (404, 405) else ""
    passing = status >= 500 or status in _PASSING
    return DescriberError(
        f"HTTP {status} {response.reason_phrase}".rstrip() + (f": {told}" if told else "") + hint,
        permanent=not passing,
        retry_after_s=_retry_after_s(response.headers.get("retry-after")) if passing else 0.0,
    )


async def _pieces(response: httpx2.Response, reader: AnswerReader) -> AsyncIterator[list[str]]:
    """Words as they come, until the reader has enough. Raises TimeoutError when no more come in time."""
    chunks = response.aiter_bytes()
    pause_s: float | None = None
    while not reader.done:
        try:
            chunk = await asyncio.wait_for(chunks.__anext__(), pause_s)
        except StopAsyncIteration:
            yield reader.end()
            return
        words = reader.feed(chunk)
        yield words
        if reader.finish_reason is not None:
            pause_s = _LAST_WORDS_S
        elif words:
            pause_s = _PAUSE_S


def _reason(error: httpx2.HTTPError) -> str:
    """An error of the transport in a few words; the library's own text for a refused connection names no cause."""
    if isinstance(error, httpx2.ConnectTimeout):
        return f"no connection within {_CONNECT_S:g} s"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, OSError) and cause.errno and cause.strerror:
            text = cause.strerror if isinstance(cause, socket.gaierror) else os.strerror(cause.errno)
            return text[:1].lower() + text[1:]
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx2.RemoteProtocolError | httpx2.ReadError):
        return f"the connection broke: {error}" if str(error) else "the connection broke"
    return str(error) or type(error).__name__


def _retry_after_s(header: str | None) -> float:
    """Seconds of a Retry-After header: a number or an HTTP date (RFC 9110, 10.2.3); 0 for none and for nonsense."""
    if header is None:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            then = parsedate_to_datetime(header)
            seconds = (then - datetime.now(timezone.utc)).total_seconds()
        except (ValueError, TypeError):
            return 0.0
    return min(_LONGEST_WAIT_S, seconds) if seconds > 0 else 0.0
