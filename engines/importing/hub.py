"""Fetches a checkpoint from a Hugging Face hub, goes on where it broke off, and believes nothing without its hash.

Two requests of the hub's HTTP interface are used: the list of a revision's files with sizes and hashes
(`/api/models/ID/revision/REV?blobs=true`), and the files themselves (`/ID/resolve/COMMIT/FILE`, with Range). Large
files carry a SHA-256 (Git LFS), small ones Git's own SHA-1. Only weights in safetensors and known settings are fetched:
no pickles, no code. HF_ENDPOINT names another hub, HF_TOKEN opens models that need an account.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.errors import ModelError, SourceError
from engines import store

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_ORIGIN = ".hub.json"
_TIMEOUT_S = 30.0
_TRIES = 5  # in a row without a byte of progress
_BLOCK = 1 << 20
_FAULTS = (urllib.error.URLError, http.client.HTTPException, OSError)

Progress = Callable[[str, "float | None"], object]


@dataclass(frozen=True, slots=True)
class _File:
    """A file of a revision. digest: hex SHA-256 of the content, or Git's SHA-1 of it as a blob."""

    name: str
    size: int
    digest: str


def is_id(text: str) -> bool:
    """Has this the form of a model's name on a hub, `OWNER/NAME`?"""
    return _ID.fullmatch(text) is not None


def fetch(
    model: str,
    revision: str,
    folder: Path,
    settings: Sequence[str],
    check: Callable[[Path], object],
    progress: Progress,
) -> dict[str, str]:
    """Fetch the weights of `OWNER/NAME` and those of `settings` that it has into a folder; what a broken download left
    there is used. check: called with the folder when the settings are there, so that a model that can't be used is
    refused before its weights are fetched. Returns hub, model and commit.

    Raises SourceError when the hub can't be reached or the connection breaks for good; what was fetched stays then.
    Raises ModelError when there is no such model or a file isn't what the hub says, OSError when the disk is full."""
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    progress("asking the hub", None)
    listed = _json(f"{endpoint}/api/models/{model}/revision/{urllib.parse.quote(revision, safe='')}?blobs=true")
    try:
        origin = {"hub": endpoint, "model": str(listed.get("id", model)), "commit": str(listed["sha"])}
        files = [_file(entry) for entry in listed["siblings"] if "/" not in entry["rfilename"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{endpoint}: the hub's answer about {model} lacks {error}; expected files with hashes"
        ) from error
    wanted = _chosen({file.name: file for file in files}, settings, model)
    _resume_only(folder, origin)
    total = sum(file.size for file in wanted)
    store.check_room(folder, 2 * total - sum(_present(folder, file) for file in wanted))  # and once more when converted
    base = f"{endpoint}/{origin['model']}/resolve/{origin['commit']}"
    before, checked = 0, False
    for file in wanted:
        if file.name not in settings and not checked:
            check(folder)
            checked = True

        def report(have: int, step: str = f"fetching {file.name}", before: int = before) -> None:
            progress(step, (before + have) / total)

        progress(f"fetching {file.name}", None)
        _fetch(f"{base}/{file.name}", folder, file, report)
        before += file.size
    return origin


def _file(entry: dict[str, Any]) -> _File:
    large = entry.get("lfs")
    return (
        _File(entry["rfilename"], int(large["size"]), str(large["sha256"]))
        if large
        else _File(entry["rfilename"], int(entry["size"]), str(entry["blobId"]))
    )


def _chosen(files: dict[str, _File], settings: Sequence[str], model: str) -> list[_File]:
    """Settings first, so that a model that can't be used is refused by what is small."""
    weights = [files[name] for name in ("model.safetensors",) if name in files] or [
        file for name, file in sorted(files.items()) if _SHARD.fullmatch(name) or name == "model.safetensors.index.json"
    ]
    if not weights:
        raise ModelError(
            f"{model}: has no model.safetensors and no shards of it, but {', '.join(sorted(files)[:8]) or 'no files'}; "
            "expected weights in the safetensors format"
        )
    return [*(files[name] for name in settings if name in files), *weights]


def _resume_only(folder: Path, origin: dict[str, str]) -> None:
    """Make the folder ready; what it holds of another model or commit is thrown away."""
    note = folder / _ORIGIN
    if not (note.is_file() and note.read_text(encoding="utf-8") == json.dumps(origin)):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        note.write_text(json.dumps(origin), encoding="utf-8")


def _present(folder: Path, file: _File) -> int:
    """Bytes that are there already."""
    for found in (folder / file.name, folder / f"{file.name}.part"):
        if found.is_file():
            return min(found.stat().st_size, file.size)
    return 0


def _fetch(url: str, folder: Path, file: _File, report: Callable[[int], object]) -> None:
    """One file, whole and verified; a part is kept under another name until then."""
    target, part = folder / file.name, folder / f"{file.name}.part"
    if target.is_file():
        if _digest(target, file) == file.digest:
            return
        target.unlink()  # whole when it was fetched; a power cut may have taken what wasn't on the disk yet
    tries = 0
    while (have := _size(part)) < file.size:
        fault = _continue(url, part, file.size, report)
        if (now := _size(part)) >= file.size:
            break
        tries = 0 if now > have else tries + 1
        if tries == _TRIES:
            raise SourceError(
                f"{url}: broke off after {max(0, now) / 1e6:,.1f} of {file.size / 1e6:,.1f} MB ({fault}); what was "
                "fetched is kept: give the same command again to go on"
            )
        time.sleep(0.25 * 2**tries)
    if (found := _digest(part, file)) != file.digest:
        part.unlink()
        raise ModelError(f"{url}: found hash {found}, expected {file.digest} by the hub's list: damaged on its way")
    part.replace(target)


def _continue(url: str, part: Path, size: int, report: Callable[[int], object]) -> str:
    """Fetch what is missing of a part, as far as the connection lasts; returns why it ended."""
    have = max(0, _size(part))
    try:
        response = _open(url, {"Range": f"bytes={have}-"} if have else {})
    except urllib.error.HTTPError as error:
        _refuse(error, url)
        return f"HTTP {error.code}"
    except _FAULTS as error:
        return _reason(error)
    if have and response.status != 206:  # a server that knows no ranges begins anew
        have = 0
    with response, part.open("r+b" if have else "wb") as out:
        out.seek(have)
        while have <= size:
            try:
                block = response.read1(_BLOCK)  # what has come, not all of it: a kill loses little
            except _FAULTS as error:
                return _reason(error)
            if not block:
                return "the connection was closed"
            out.write(block)
            have += len(block)
            report(min(have, size))
    return "the server sent more than it had announced"


def _json(url: str) -> dict[str, Any]:
    try:
        with _open(url, {}) as response:
            content = json.load(response)
    except urllib.error.HTTPError as error:
        _refuse(error, url)
        raise SourceError(f"{url}: HTTP {error.code}; expected the hub's list of files; try again later") from error
    except _FAULTS as error:
        raise SourceError(
            f"{url}: can't be reached ({_reason(error)}); expected a Hugging Face hub (HF_ENDPOINT names another "
            "one); a folder that was fetched elsewhere can be imported too"
        ) from error
    except ValueError as error:
        raise SourceError(f"{url}: not JSON ({error}); expected the list of files of a Hugging Face hub") from error
    return dict(content)


def _open(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": "stillwatch", **headers})
    if token := os.environ.get("HF_TOKEN"):  # for the hub alone: not for the server that it sends us on to
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    return response


def _refuse(error: urllib.error.HTTPError, url: str) -> None:
    """Raises ModelError for answers that another try won't change."""
    if error.code in (401, 403, 404):
        raise ModelError(
            f"{url}: HTTP {error.code}: no such model or revision, or one that needs an account; check its name, "
            "accept its terms on the hub, and set HF_TOKEN"
        ) from error


def _size(file: Path) -> int:
    """Bytes of a file; -1 when there is none."""
    return file.stat().st_size if file.is_file() else -1


def _digest(file: Path, expected: _File) -> str:
    digest = hashlib.sha256() if len(expected.digest) == 64 else hashlib.sha1(f"blob {_size(file)}\0".encode())
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error) or type(error).__name__
