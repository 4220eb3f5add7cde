"""From a URI to an open source: one table of schemes, one small function for each kind."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from agent.capture.clock import Clock, SystemClock
from agent.capture.decoding import Kind, VideoInput
from agent.capture.detached import DetachedSource
from agent.capture.images import SUFFIXES, ImageSource
from agent.capture.jetson_choice import choose, open_chosen
from agent.capture.source import FrameSource
from agent.capture.tap import PacketTap
from agent.capture.video import VideoSource
from config.errors import ConfigError, CorruptInput, SourceError
from config.redact import redact

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_DEVICE = re.compile(r"(?:v4l2:(?://)?)?(?P<path>/dev/video[^?]*)(?:\?(?P<query>.*))?")
_DEVICE_OPTIONS = {"size": "video_size", "rate": "framerate", "format": "input_format"}
_TCP = {"rtsp_transport": "tcp", "allowed_media_types": "video"}  # UDP loses packets, and every loss smears the picture


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the caller of `open_source` asked for."""

    uri: str = field(repr=False)
    name: str
    source_id: str
    paced: bool
    fps: float | None
    timeout_s: float
    credentials: str | None = field(repr=False)
    clock: Clock
    motion: bool
    tap: PacketTap | None


def open_source(
    uri: str,
    *,
    source_id: str,
    paced: bool | None = None,
    fps: float | None = None,
    timeout_s: float = 10.0,
    credentials: str | None = None,
    clock: Clock | None = None,
    motion: bool = False,
    tap: PacketTap | None = None,
    apart: bool = False,
) -> FrameSource:
    """Open a camera, stream, file, folder of images or rendered scene.

    uri: a path or `file:` URL (video, image, folder of images); `rtsp://`, `rtsps://`, `http://`, `https://`;
    `/dev/videoN` with `?size=1280x720&rate=30&format=mjpeg` as wanted; `csi://N` on a Jetson; `scene:NAME?seed=…`.
    Where jetson-utils works it takes cameras (`agent.capture.jetson_choice`). paced: recorded video at
    its own speed (it then counts as live: a slow reader loses frames) or as fast as it is read (False and None). Live
    sources are live whatever is said here. fps: keep at most so many frames a second; `Frame.index` counts the others
    too. timeout_s: the longest wait for a network or device to open (a second more where it doesn't answer at all) or
    to deliver. credentials: `user:password` for rtsp and http; takes the place of those in the URL. motion: have
    `Frame.motion` hold the codec's motion vectors, where it hands them out (H.264, MPEG-4 and older) and
    pictures are not above 720p. tap: hears the packets of a video; pictures and scenes have none. apart: read it in a
    process of its own (`agent.capture.apart`), whose clock is the machine's.

    Raises ConfigError (a URI that can't be used), SourceError (can't be reached now), CorruptInput (a file that is
    there and can't be decoded). No message holds a credential.
    """
    name = redact(uri)
    if credentials is not None and not uri.lower().startswith(("rtsp://", "rtsps://", "http://", "https://")):
        raise ConfigError(f"{name}: credentials are for rtsp and http sources")
    choice = choose(uri, packets=tap is not None)
    if choice.way is not None:
        target = choice.uri if credentials is None else _with_credentials(choice.uri, credentials)
        taken = replace(choice, uri=target)
        return open_chosen(
            taken, name=name, source_id=source_id, fps=fps, timeout_s=timeout_s, clock=clock or SystemClock()
        )
    order: dict[str, Any] = {
        "uri": choice.uri,
        "name": name,
        "source_id": source_id,
        "paced": bool(paced),
        "fps": fps,
        "timeout_s": timeout_s,
        "credentials": credentials,
        "motion": motion,
    }
    if apart and clock is None:
        from agent.capture.apart import ApartSource

        return ApartSource(order, tap=tap)
    return open_directly(**order, clock=clock, tap=tap)


def open_directly(
    uri: str,
    *,
    name: str,
    source_id: str,
    paced: bool,
    fps: float | None,
    timeout_s: float,
    credentials: str | None,
    motion: bool,
    clock: Clock | None = None,
    tap: PacketTap | None = None,
) -> FrameSource:
    """As `open_source`, with libav or our own means, in this process. name: what messages call it."""
    clock = clock or SystemClock()
    wanted = _Wanted(uri, name, source_id, paced, fps, timeout_s, credentials, clock, motion, tap)
    if _DEVICE.fullmatch(uri):
        return _open_device(wanted)
    scheme = _SCHEME.match(uri)
    # A file may well be called "cam:12.30.mp4". Path.exists would raise for a long URL, os.path.exists says no.
    if scheme is None or os.path.exists(uri):  # noqa: PTH110
        return _open_path(wanted, Path(uri))
    opener = _OPENERS.get(scheme[1].lower())
    if opener is None:
        known = ", ".join(sorted(_OPENERS))
        raise ConfigError(
            f"{wanted.name}: no source of kind {scheme[1]!r}; expected a path, /dev/videoN or one of {known}"
        )
    return opener(wanted)


def _split(wanted: _Wanted) -> SplitResult:
    try:
        return urlsplit(wanted.uri)
    except ValueError as error:
        raise ConfigError(f"{wanted.name}: not a URL: {error}") from None


def _open_path(wanted: _Wanted, path: Path) -> FrameSource:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise SourceError(f"{wanted.name}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{wanted.name!r} can't be a path: {error}") from error
    if path.is_dir() or path.suffix.lower() in SUFFIXES:
        return ImageSource(path, source_id=wanted.source_id, paced=wanted.paced, fps=wanted.fps, clock=wanted.clock)
    if path.is_file() and size == 0:
        raise CorruptInput(f"{wanted.name}: the file is empty")
    # "file:" keeps libav from taking a colon in the name for a protocol.
    return _open_video(VideoInput(Kind.FILE, f"file:{path}", wanted.name), wanted)


def _open_file_url(wanted: _Wanted) -> FrameSource:
    parts = _split(wanted)
    if parts.netloc not in ("", "localhost"):
        raise ConfigError(f"{wanted.name}: a file URL names no host; write file:///path")
    return _open_path(wanted, Path(unquote(parts.path)))


def _open_stream(wanted: _Wanted) -> FrameSource:
    parts = _split(wanted)
    if not parts.hostname:
        raise ConfigError(f"{wanted.name}: expected {parts.scheme}://HOST/…")
    rtsp = parts.scheme.lower().startswith("rtsp")
    url = _with_credentials(wanted.uri, wanted.credentials) if wanted.credentials is not None else wanted.uri
    return _detached(
        VideoInput(Kind.STREAM if rtsp else Kind.DOWNLOAD, url, wanted.name, options=_TCP if rtsp else {}), wanted
    )


def _open_device(wanted: _Wanted) -> FrameSource:
    match = _DEVICE.fullmatch(wanted.uri)
    if match is None:
        raise ConfigError(f"{wanted.name}: expected /dev/videoN or v4l2:///dev/videoN")
    options = dict(parse_qsl(match["query"] or "", keep_blank_values=True))
    unknown = options.keys() - _DEVICE_OPTIONS.keys()
    if unknown:
        known = ", ".join(_DEVICE_OPTIONS)
        raise ConfigError(f"{wanted.name}: unknown option {', '.join(sorted(unknown))}; expected {known}")
    named = {_DEVICE_OPTIONS[key]: value for key, value in options.items()}
    return _detached(VideoInput(Kind.DEVICE, match["path"], wanted.name, format="v4l2", options=named), wanted)


def _open_video(video: VideoInput, wanted: _Wanted) -> FrameSource:
    return VideoSource(
        video,
        source_id=wanted.source_id,
        paced=wanted.paced,
        fps=wanted.fps,
        timeout_s=wanted.timeout_s,
        clock=wanted.clock,
        motion=wanted.motion,
        tap=wanted.tap,
    )


def _detached(video: VideoInput, wanted: _Wanted) -> FrameSource:
    return DetachedSource(partial(_open_video, video, wanted), name=wanted.name, timeout_s=wanted.timeout_s)


def _with_credentials(url: str, credentials: str) -> str:
    user, colon, password = credentials.partition(":")
    if not user or not colon:
        raise ConfigError(f"{redact(url)}: expected credentials of the form user:password")
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{quote(user, safe='')}:{quote(password, safe='')}@{host}").geturl()


def _open_scene(wanted: _Wanted) -> FrameSource:
    from agent.capture.scene.source import SceneSource

    return SceneSource(wanted.uri, source_id=wanted.source_id, paced=wanted.paced, fps=wanted.fps, clock=wanted.clock)


def _refuse_csi(wanted: _Wanted) -> FrameSource:
    raise ConfigError(f"{wanted.name}: expected csi://N, the number of a CSI camera on an NVIDIA Jetson")


_OPENERS: Mapping[str, Callable[[_Wanted], FrameSource]] = {
    "file": _open_file_url,
    "rtsp": _open_stream,
    "rtsps": _open_stream,
    "http": _open_stream,
    "https": _open_stream,
    "v4l2": _open_device,
    "scene": _open_scene,
    "csi": _refuse_csi,
}
