"""Which sources jetson-utils takes, and the options they are given.

Options stand behind `#` (never sent to a camera; behind `?` for csi and /dev/videoN, as everywhere):
`capture=process|thread|libav`, `size=1280x720`, `rate=30`, `codec=H264`, `latency=200`, `flip=clockwise`, `buffers=4`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from agent.capture.clock import Clock
from agent.capture.detached import DetachedSource
from agent.capture.source import FrameSource
from config.errors import ConfigError
from config.redact import redact

_CSI = re.compile(r"csi://\d+(?:\?(?P<query>[^#]*))?")
_DEVICE = re.compile(r"(?:v4l2:(?://)?)?(?P<path>/dev/video\d+)(?:\?(?P<query>[^#]*))?")
_OPTIONS = re.compile(r"#(?P<options>[a-z]+=[^#]*)$")
_WAYS = ("process", "thread", "libav")
_PROBE_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Choice:
    """uri: without our options. way: process or thread for jetson-utils, None for libav. why: a sentence."""

    uri: str
    way: str | None
    options: Mapping[str, Any]
    why: str


def missing() -> str | None:
    """Why jetson-utils can't be used here; None when it can. It is tried in a process of its own: it brings OpenGL and
    GStreamer, which the agent's process is better off without."""
    if find_spec("jetson_utils") is None and find_spec("jetson_utils_python") is None:
        return (
            "jetson_utils is not on this machine; on a Jetson: git clone --recursive "
            "https://github.com/dusty-nv/jetson-utils, then cmake, make and sudo make install in a folder of it"
        )
    return _broken(tuple(sys.path))


@lru_cache(maxsize=4)
def _broken(path: tuple[str, ...]) -> str | None:
    code = (
        f"import sys; sys.path[:] = {list(path)!r}\n"
        "from agent.capture.jetson_camera import import_jetson_utils\nimport_jetson_utils()"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=_PROBE_WITHIN_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"importing jetson_utils takes longer than {_PROBE_WITHIN_S:g} s"
    if done.returncode == 0:
        return None
    said = done.stderr.strip().splitlines()
    return said[-1] if said else f"importing jetson_utils ends with status {done.returncode}"


def choose(uri: str, *, packets: bool = False, absent: Callable[[], str | None] = missing) -> Choice:
    """Who captures. packets: somebody wants the video's packets (for clips), which jetson-utils doesn't give out.

    CSI cameras need jetson-utils. RTSP and V4L2 take it where it works: decoding costs the CPU nothing then. Files stay
    with libav unless told otherwise, because jetson-utils skips frames. Raises ConfigError.
    """
    match = _OPTIONS.search(uri)
    given = dict(parse_qsl(match["options"], keep_blank_values=True)) if match else {}
    if match and "capture" not in given and not uri.startswith(("rtsp:", "csi:", "/dev/", "v4l2:")):
        match, given = None, {}  # a file may well be called "a#b=c.mp4"
    plain = uri[: match.start()] if match else uri
    camera, device = _CSI.fullmatch(plain), _DEVICE.fullmatch(plain)
    found = camera or device
    query = dict(parse_qsl((found["query"] if found else None) or "", keep_blank_values=True))
    if camera is None and "capture" not in query:
        query = {}  # a device's own options, which libav understands
    wanted = {**query, **given}
    way = wanted.pop("capture", None)
    if way not in (None, *_WAYS):
        raise ConfigError(f"{redact(uri)}: capture={way}; expected one of {', '.join(_WAYS)}")
    if way == "libav":
        if camera:
            raise ConfigError(f"{redact(uri)}: only jetson-utils reads CSI cameras; expected capture=process or thread")
        return Choice(plain, None, {}, "libav captures, as it was told")
    if camera is None and way is None:
        if not (device or plain.startswith("rtsp://")):
            return Choice(plain, None, {}, "libav captures files without skipping frames")
        if packets:
            return Choice(plain, None, {}, "libav captures: clips are made of the video's own packets")
        if device and device["query"]:
            return Choice(plain, None, {}, "libav captures: the device was given libav's options")
        if (reason := absent()) is not None:
            return Choice(plain, None, {}, f"libav captures: {reason}")
    elif (reason := absent()) is not None:
        raise ConfigError(f"{redact(uri)}: needs jetson-utils: {reason}")
    target = plain.partition("?")[0] if found else plain
    if found is None and "://" not in plain:
        target = f"file://{Path(plain.removeprefix('file:')).absolute()}"
    return Choice(target, way or "process", _read(wanted, redact(uri)), "jetson-utils captures")


def open_chosen(
    choice: Choice, *, name: str, source_id: str, fps: float | None, timeout_s: float, clock: Clock
) -> FrameSource:
    """Open what `choose` gave to jetson-utils. Raises ConfigError, SourceError."""
    from agent.capture.jetson import THREAD_BUFFERS, ProcessSource, ThreadSource
    from agent.capture.jetson_camera import CameraOptions, check

    buffers = {"buffers": THREAD_BUFFERS} if choice.way == "thread" else {}
    options = CameraOptions(uri=choice.uri, name=name, **{**buffers, **choice.options})
    check(options)
    if choice.way == "process":
        return ProcessSource(options, source_id=source_id, fps=fps, timeout_s=timeout_s)
    opened = partial(ThreadSource, options, source_id=source_id, fps=fps, timeout_s=timeout_s, clock=clock)
    return DetachedSource(opened, name=name, timeout_s=timeout_s)


def _size(text: str) -> tuple[int, int]:
    width, height = text.split("x")
    return int(width), int(height)


_READERS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "size": ("size", _size),
    "rate": ("rate", float),
    "codec": ("codec", str.upper),
    "latency": ("latency_ms", int),
    "flip": ("flip", str),
    "buffers": ("buffers", int),
}


def _read(wanted: Mapping[str, str], name: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for key, text in wanted.items():
        if key not in _READERS:
            raise ConfigError(f"{name}: unknown option {key}; expected capture, {', '.join(_READERS)}")
        field, reader = _READERS[key]
        try:
            options[field] = reader(text)
        except ValueError:
            raise ConfigError(f"{name}: {key}={text} can't be read; expected such as size=1280x720, rate=30") from None
    return options
