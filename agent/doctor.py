"""`stillwatch doctor`: what is used on this machine, what better was not taken and why, and how fast it is."""

from __future__ import annotations

import asyncio
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from agent import __version__
from agent.capture.jetson_choice import missing
from agent.mqtt.broker import MISSING, find_mosquitto
from agent.power.sensors import Sensors
from agent.runtimes import DecoderChoice, EncoderChoice, choose_decoder, choose_encoder
from agent.vision import choose_vision
from config.errors import ConfigError, DescriberError, EngineFault, ModelError
from config.settings import Describer
from engines.manifest import Model, find_model, load_model
from engines.native import NativeTower
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.plan import EncodePlan, Mode

PACKAGES = ("numpy", "opencv-python-headless", "av", "onnxruntime", "tokenizers", "pydantic", "paho-mqtt")
_SELECTED = 0.05
"""Share of tokens of the selective encode that is timed: an ordinary frame of a fixed camera."""
_ANSWER_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Part:
    """What does one job. not_taken: better choices that are not used, a sentence each."""

    used: str
    not_taken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """Everything the doctor found.

    pixels_go_to: `host:port` of the configured vision server. problems: what keeps Stillwatch from working as it is
    configured, a sentence each.
    """

    version: str
    machine: dict[str, Any]
    packages: dict[str, str]
    parts: dict[str, Part]
    model: dict[str, Any]
    timings_ms: dict[str, float]
    pixels_leave_the_box: bool = False
    pixels_go_to: str | None = None
    problems: tuple[str, ...] = field(default_factory=tuple)

    @property
    def healthy(self) -> bool:
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "healthy": self.healthy}


def examine(
    model_name: str = "reference",
    has: Callable[[str], bool] = lambda name: find_spec(name) is not None,
    *,
    describer: Describer | None = None,
    sysfs: Path = Path("/sys"),
) -> Report:
    """Look at this machine, and ask the configured vision server which models it has; no picture is sent. `has` says
    whether a Python module is installed; of a Jetson, what is installed is tried."""
    problems: list[str] = []
    model: dict[str, Any] = {"name": model_name, "checked": False}
    timings: dict[str, float] = {}
    encoder: EncoderChoice | None = None
    decoder: DecoderChoice | None = None
    tower: NativeTower | str = "the model can't be used"
    try:
        loaded = load_model(find_model(model_name))
        model = _describe(loaded)
        runtime = OnnxRuntime(loaded, spin=False)
        timings, tower = _time(runtime), runtime.tower
        encoder = choose_encoder(loaded, has=has, may_build=False)
        decoder = choose_decoder(loaded, beside=encoder, has=has, may_build=False)
    except (ModelError, EngineFault) as error:
        problems.append(str(error))
    parts, server = {**_parts(has, encoder, tower, decoder), "power": _power(Sensors(sysfs))}, None
    if describer is not None:
        from agent.describer.chat import server_name

        server = server_name(describer.url)
        try:
            parts["describer"] = asyncio.run(_describer(describer))
        except (ConfigError, DescriberError) as error:
            parts["describer"] = Part(f"{describer.model} at {server}")
            problems.append(f"the describer gives no words: {error}")
    return Report(
        version=__version__,
        machine={
            "system": platform.platform(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        },
        packages={name: version(name) for name in PACKAGES},
        parts=parts,
        model=model,
        timings_ms=timings,
        pixels_leave_the_box=server is not None,
        pixels_go_to=server,
        problems=tuple(problems),
    )


def _parts(
    has: Callable[[str], bool],
    encoder: EncoderChoice | None,
    tower: NativeTower | str,
    decoder: DecoderChoice | None,
) -> dict[str, Part]:
    import onnxruntime

    vision = choose_vision(has=has)
    mosquitto = find_mosquitto()
    return {
        "capture": _capture(),
        "flow": Part(vision.flow, vision.flow_why),
        "kernels": Part(vision.patches, vision.patches_why),
        "encoder": Part(
            _encoding(encoder, tower),
            (
                *(encoder.not_taken if encoder else ()),
                *(
                    (f"Changed tokens are encoded faster by C that is compiled here: {tower}.",)
                    * isinstance(tower, str)
                ),
                *(
                    f"ONNX Runtime offers {provider}; this version runs on its CPU provider only."
                    for provider in onnxruntime.get_available_providers()
                    if provider not in ("CPUExecutionProvider", "AzureExecutionProvider")
                ),
            ),
        ),
        "decoder": Part(
            decoder.used if decoder else "nothing: the model can't be used",
            (
                *(decoder.not_taken if decoder else ()),
                "A larger model on a vision server gives better words: set `describer: {url: http://HOST:PORT/v1, "
                "model: NAME}` in the configuration.",
            ),
        ),
        "broker": Part(
            f"{mosquitto} for the demo; any MQTT 5 or 3.1.1 broker by its URL"
            if mosquitto
            else "any broker by its URL",
            () if mosquitto else (f"There is no broker on this machine for the demo: {MISSING}.",),
        ),
    }


def _power(sensors: Sensors) -> Part:
    if not sensors.found:
        return Part("off: this machine has no sensors of power or heat in sysfs, so nothing is done about either")
    if not sensors.can_guard:
        return Part(f"told only: {sensors}", ("no sensor here says where its limit is, so nothing is done about it.",))
    return Part(f"kept within limits: {sensors}")


async def _describer(settings: Describer) -> Part:
    """Raises ConfigError for a key that can't be had, DescriberError for a server that doesn't answer as one."""
    from agent.describer.chat import ChatServer

    key = None if settings.key is None else settings.key.read()
    async with ChatServer(settings.url, key) as server:
        try:
            names = await asyncio.wait_for(server.models(), _ANSWER_WITHIN_S)
        except asyncio.TimeoutError:
            raise DescriberError(f"{server.name}: no answer within {_ANSWER_WITHIN_S:g} s") from None
        used = f"{settings.model} at {server.name}, which answers"
        if names is None:
            unsure = "it lists no models; if no words come, does describer.url end as it wants it, mostly in /v1?"
            return Part(used, (unsure,))
        if settings.model in names or f"{settings.model}:latest" in names:
            return Part(used)
        return Part(used, (f"it lists no model {settings.model}; it lists {', '.join(names[:8]) or 'none'}.",))


def _capture() -> Part:
    reason = missing()
    if reason is None:
        return Part("jetson-utils for CSI, RTSP and V4L2 cameras, PyAV on the CPU for files and where clips are kept")
    return Part("PyAV on the CPU", (f"jetson-utils decodes with the Jetson's own engines: {reason}.",))


def _describe(model: Model) -> dict[str, Any]:
    manifest = model.manifest
    return {
        "name": manifest.name,
        "folder": str(model.folder),
        "checked": True,
        "knows": manifest.domain,
        "image_size": manifest.image_size,
        "tokens": manifest.tokens,
        "layers": manifest.layers,
        "dim": manifest.dim,
    }


def _encoding(encoder: EncoderChoice | None, tower: NativeTower | str) -> str:
    if encoder is None:
        return "nothing: the model can't be used"
    in_c = encoder.runtime is None and not isinstance(tower, str)
    return f"{encoder.used}, changed tokens by C compiled on this machine" if in_c else encoder.used


def _time(runtime: OnnxRuntime) -> dict[str, float]:
    """Median milliseconds of a full encode and of a selective one, on a picture of noise."""
    encoder, manifest = OnnxEncoder(runtime), runtime.model.manifest
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (manifest.image_size, manifest.image_size, 3), dtype=np.uint8)
    some = np.sort(rng.permutation(manifest.tokens)[: max(1, round(manifest.tokens * _SELECTED))])
    plans = {
        "full_encode": EncodePlan(Mode.FULL, None),
        f"selective_encode_{len(some)}_of_{manifest.tokens}": EncodePlan(Mode.HIERARCHICAL_DIFF, some),
    }
    timings = {}
    for name, plan in plans.items():
        spent = []
        for _ in range(6):
            start = time.perf_counter()
            encoder.encode(picture, plan)
            spent.append(1e3 * (time.perf_counter() - start))
        timings[name] = round(statistics.median(spent[1:]), 2)
    return timings


def lines(report: Report) -> list[str]:
    """The report for people."""
    machine = report.machine
    out = [
        f"Stillwatch {report.version} · Python {machine['python']} · {machine['cores']} cores · {machine['system']}",
        "",
    ]
    for name, part in report.parts.items():
        out.append(f"{name:<9} {part.used}")
        out.extend(f"{'':<9} not taken: {sentence}" for sentence in part.not_taken)
    model = report.model
    if model["checked"]:
        out.append(f"{'model':<9} {model['name']}: files and hashes are right; knows {model['knows']}")
        out.append(f"{'':<9} {model['tokens']} tokens of {model['dim']}, {model['layers']} layers")
    out.extend(f"{'timing':<9} {name.replace('_', ' ')}: {ms:g} ms" for name, ms in report.timings_ms.items())
    out.append(f"{'packages':<9} {', '.join(f'{name} {found}' for name, found in report.packages.items())}")
    where = f"yes, to {report.pixels_go_to} (describer)" if report.pixels_leave_the_box else "no"
    out.append(f"{'privacy':<9} pixels leave the box: {where}")
    out.extend(f"{'problem':<9} {problem}" for problem in report.problems)
    out.append("")
    out.append(
        "Everything that is needed works."
        if report.healthy
        else "Stillwatch can't work as it should until that is mended."
    )
    return out
