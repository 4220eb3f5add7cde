"""Everything that is asked of a machine, one after the other, in one document, and the verdict."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from agent import __version__
from agent.acceptance.backends import backends
from agent.acceptance.capturing import CaptureResult, capture_result
from agent.acceptance.encoding import EncoderResult, encoder_result
from agent.acceptance.flow import FlowResult, flow_errors
from agent.acceptance.meter import Meter
from agent.acceptance.soak import soak
from agent.acceptance.speaking import WordsResult, words_result
from agent.acceptance.stages import PICTURES, STAGES, Material, StageResult, run_picture, run_stage
from agent.board import read_board
from agent.power.sensors import Sensors
from engines.manifest import find_model, load_model

Progress = Callable[[str], None]


def accept(
    model: str = "reference",
    *,
    soak_s: float = 300.0,
    each_s: float = 1.0,
    root: Path = Path("/"),
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """The whole acceptance test: some minutes, and `soak_s` more. each_s: how long each stage is timed. root: where the
    board's files lie. Raises ModelError and EngineFault when there is nothing to test."""
    loaded = load_model(find_model(model))
    sensors = Sensors(root / "sys")
    meter = Meter(sensors, each_s)
    progress("what is used here")
    used, material = backends(loaded, progress), Material.of(loaded.manifest)
    progress("power at rest")
    idle = meter.idle_watts()
    progress("capture")
    capture = capture_result(meter)
    stages = []
    for picture in PICTURES:
        progress(picture.name)
        stages.append(run_picture(picture, material, used.sights, meter))
    for stage in STAGES:
        progress(stage.name)
        stages.append(run_stage(stage, material, used.ops, meter))
    progress("flow against rendered scenes")
    flow = flow_errors(used.ops, meter)
    progress("encoder")
    encoder = encoder_result(used, material, meter)
    progress("words")
    words = words_result(used, material, meter)
    soaked = soak(model, soak_s, sysfs=root / "sys", progress=progress)
    failures = [
        *_capture_failures(capture),
        *_stage_failures(stages),
        *_flow_failures(flow),
        *_encoder_failures(encoder),
        *_words_failures(words),
        *soaked.failures,
    ]
    board = read_board(root)
    return {
        "v": 1,
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "version": __version__,
        "machine": {
            "board": board.model,
            "l4t": board.l4t,
            "jetpack": None if board.jetpack is None else board.jetpack.name,
            "system": platform.platform(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        },
        "model": loaded.manifest.name,
        "sensors": str(sensors),
        "idle_watts": idle,
        "capture": capture.as_json(),
        "stages": [stage.as_json() for stage in stages],
        "flow": flow.as_json(),
        "encoder": encoder.as_json(),
        "words": words.as_json(),
        "soak": soaked.as_json(),
        "not_taken": list(dict.fromkeys([*([capture.why] if capture.why else []), *used.not_taken])),
        "own": _own(capture, stages, flow, encoder, words),
        "failures": failures,
        "passed": not failures,
    }


def _own(
    capture: CaptureResult, stages: list[StageResult], flow: FlowResult, encoder: EncoderResult, words: WordsResult
) -> list[str]:
    """Names of what is the host's own, and so compared with nothing."""
    others = {"capture": capture.own, "flow": flow.own, "encoder": encoder.own, "words": words.own}
    return [*(stage.stage for stage in stages if stage.own), *(name for name, own in others.items() if own)]


def _capture_failures(capture: CaptureResult) -> list[str]:
    if capture.passed:
        return []
    found = f"{capture.frames} of {capture.clip_frames} frames"
    if capture.difference is not None:
        order = "in order" if capture.in_order else "out of order"
        found += f", {order}, that differ by {capture.difference:g} grey levels from libav's; expected 8 or less"
    return [f"capture by {capture.runs_on}: {capture.fault or found}"]


def _stage_failures(stages: list[StageResult]) -> list[str]:
    return [
        f"{stage.stage} on {stage.runs_on}: {stage.fault}"
        if stage.fault
        else f"{stage.stage} on {stage.runs_on}: differs by {stage.difference:.3g} {stage.unit} from the host's, "
        f"expected {stage.tolerance:g} or less"
        for stage in stages
        if stage.passed is False
    ]


def _flow_failures(flow: FlowResult) -> list[str]:
    if flow.passed:
        return []
    if flow.found is None:
        return [f"flow on {flow.runs_on}: {flow.fault}"]
    host = "" if flow.host is None else f", the host's own {flow.host.mean_px:g} px"
    check = "" if not flow.check_differs else f"; its check differs from the host's on {flow.check_differs:.1%} of it"
    return [
        f"flow on {flow.runs_on}: off by {flow.found.mean_px:g} px in the mean and {flow.found.moving_px:g} px where "
        f"something moves{host}; assuming no motion, by {flow.no_motion.moving_px:g} px there{check}"
    ]


def _encoder_failures(encoder: EncoderResult) -> list[str]:
    if encoder.passed is not False:
        return []
    if encoder.fault:
        return [f"encoder on {encoder.runs_on}: {encoder.fault}"]
    return [
        f"encoder on {encoder.runs_on}: cosine with the host's (mean, least) is {encoder.full} for a full encode and "
        f"{encoder.selective} for a selective one, expected 0.999 and 0.99 or more"
    ]


def _words_failures(words: WordsResult) -> list[str]:
    if words.passed is not False:
        return []
    told = words.fault or f"cosine of the logits with the host's is {words.cosine}, expected 0.999 or more"
    return [f"words on {words.runs_on}: {told}"]


def lines(report: dict[str, Any]) -> list[str]:
    """The report for people."""
    machine, soaked, flow = report["machine"], report["soak"], report["flow"]
    title = machine["board"] or machine["system"]
    out = [f"Stillwatch {report['version']} on {title}, {machine['cores']} cores, model {report['model']}"]
    if machine["l4t"]:
        out.append(f"L4T {machine['l4t']}, JetPack {machine['jetpack'] or 'unknown'}")
    out.append(f"sensors: {report['sensors']}" + _watts(report["idle_watts"], " W at rest"))
    out.append("")
    capture = report["capture"]
    came = f"{capture['frames']} of {capture['clip_frames']} frames"
    said = "host's own" if capture["own"] else capture["fault"] or f"{came}, differ by {capture['difference']}"
    out.append(_line("capture", capture["ms"], capture["host_ms"], capture["watts"], said))
    for stage in report["stages"]:
        out.append(_line(stage["stage"], stage["ms"], stage["host_ms"], stage["watts"], _difference(stage)))
    found = flow["found"]
    said = flow["fault"] or f"off by {found['mean_px']:g} px, {found['moving_px']:g} px where it moves"
    out.append(
        _line("flow", flow["ms"], flow["host_ms"], flow["watts"], said + (", host's own" if flow["own"] else ""))
    )
    encoder = report["encoder"]
    host_ms = {cost["tokens"]: cost["ms"] for cost in encoder["host_costs"]}
    for cost in encoder["costs"]:
        said = "host's own" if encoder["own"] else f"cosine {encoder['full'][0]:.5f}, {encoder['selective'][0]:.5f}"
        name = f"encode {cost['tokens']} tokens"
        out.append(_line(name, cost["ms"], host_ms.get(cost["tokens"]), cost["watts"], said))
    words = report["words"]
    said = "host's own" if words["own"] else words["fault"] or f"cosine {words['cosine']:.5f}"
    pace, host_pace = words["pace"] or {}, words["host_pace"] or {}
    for part, what in (("first", "words, the first"), ("answer", f"words, {pace.get('pieces', 0)} pieces")):
        cost, host_cost = pace.get(part, {}), host_pace.get(part, {})
        out.append(_line(what, cost.get("ms"), host_cost.get("ms"), cost.get("watts"), said))
    out.append("")
    growth = soaked["mb_per_minute"]
    told = "too short to tell growth" if growth is None else f"{growth:+.2f} MB a minute"
    out.append(
        f"soak {soaked['seconds']:g} s: {soaked['frames_per_s']:g} frames/s, {sum(soaked['frames'].values())} frames, "
        f"{soaked['dropped']} dropped, {soaked['resident_mb']:g} MB ({told})" + _watts(soaked["watts"], " W")
    )
    out.extend(f"failure  {failure}" for failure in report["failures"])
    out.append("")
    out.append("Accepted." if report["passed"] else "Not accepted.")
    return out


def _line(name: str, ms: float | None, host_ms: float | None, watts: float | None, said: str) -> str:
    host = "" if host_ms is None else f" (host {host_ms:.2f})"
    time = "     –   " if ms is None else f"{ms:8.2f} ms"
    return f"{name:<28}{time}{host}  {said}{_watts(watts, ' W')}"


def _difference(stage: dict[str, Any]) -> str:
    if stage["fault"]:
        return str(stage["fault"])
    if stage["own"]:
        return "host's own"
    verdict = "" if stage["passed"] else ", too much"
    return f"differs by {stage['difference']:.3g} {stage['unit']}{verdict}"


def _watts(watts: float | None, unit: str) -> str:
    return "" if watts is None else f", {watts:.1f}{unit}"
