"""TensorRT on its stand-in: engines are built, verified, kept and refused; a GPU that fails costs speed, not frames."""

from __future__ import annotations

import gc
import importlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines_checkpoint import Size, write_checkpoint
from numpy.typing import NDArray
from tensorrt_world import World, left_clean, poison_rows, simulated
from typer.testing import CliRunner

from agent import models
from agent.coherence.memory import by_part
from agent.notify import extend_start
from agent.runtimes import choose_encoder
from config.errors import EngineFault
from engines.export import export_model
from engines.fallback import PATIENCE, FallbackEncoder
from engines.manifest import Model, load_model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.plan import EncodePlan, Mode
from engines.tensorrt import enginefile
from engines.tensorrt.building import Watch
from engines.tensorrt.encoder import TensorRtEncoder
from engines.tensorrt.recipe import MIB, Precision, buckets, precisions, workspace_bytes
from engines.tensorrt.releases import TABLE, release_of
from engines.tensorrt.runtime import TensorRtRuntime

pytestmark = pytest.mark.jetson

SIZE = Size()
TOKENS = (SIZE.image // SIZE.patch) ** 2
FULL = EncodePlan(Mode.FULL, None)
RELEASES = ("8.6.2", "10.3.0", "10.13.3", "11.4.0")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("model")
    write_checkpoint(folder, SIZE)
    return export_model(folder, name="random", domain="noise", prompt="{image}{question}", select_buckets=(4, 8))


@pytest.fixture(scope="module")
def shared() -> Iterator[World]:
    with simulated() as made:
        yield made


@pytest.fixture
def world(shared: World) -> Iterator[World]:
    with left_clean(shared):
        yield shared


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where engines go."""
    monkeypatch.setenv("STILLWATCH_ENGINES", str(tmp_path))
    return tmp_path / "random"


def picture(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (SIZE.image, SIZE.image, 3), dtype=np.uint8)


def select(*slots: int, coarse: tuple[int, ...] = ()) -> EncodePlan:
    return EncodePlan(Mode.WARPING, np.array(slots, np.int64), coarse=np.array(coarse, np.int64) if coarse else None)


def host(model: Model) -> OnnxEncoder:
    return OnnxEncoder(OnnxRuntime(model, threads=1))


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(((a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))).min())


# Building.


@pytest.mark.parametrize("release", RELEASES)
def test_every_release_gives_what_onnx_runtime_gives(model: Model, tmp_path: Path, release: str) -> None:
    with simulated(release) as world:
        runtime = TensorRtRuntime(model, world.gpu, folder=tmp_path)
        assert runtime.precision is (Precision.FP32 if release.startswith("11") else Precision.FP16)
        first, second = TensorRtEncoder(runtime, refresh=False), TensorRtEncoder(runtime, refresh=False)
        for encoder in (first, second):  # two cameras, one engine
            theirs = host(model)
            for number, plan in enumerate((FULL, select(1, 2), select(8, coarse=(2,)), select(*range(8)))):
                ours, expected = encoder.encode(picture(number), plan), theirs.encode(picture(number), plan)
                assert ours.encoded == expected.encoded
                assert cosine(ours.features, expected.features) > 0.9999
            assert cosine(encoder.encode_full(picture(9)), theirs.encode_full(picture(9))) > 0.9999
            encoder.close()
        assert all(check["passed"] for check in runtime.checks) and len(runtime.checks) == 3
        del encoder, first, second, runtime


def test_engines_are_kept_and_opened_again_without_building(world: World, model: Model, folder: Path) -> None:
    steps: list[str] = []
    watch = Watch(lambda step, done: steps.append(step))
    built = TensorRtRuntime(model, world.gpu, watch=watch)
    assert any("building" in step for step in steps) and any("comparing" in step for step in steps)
    steps.clear()
    opened = TensorRtRuntime(model, world.gpu, watch=watch)
    assert steps == [] and opened.notes == () and opened.checks == built.checks
    assert not list(folder.glob(".*")), "something half-written is left"


def test_an_engine_of_another_machine_is_told_apart_and_built_anew(
    world: World, model: Model, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    TensorRtRuntime(model, world.gpu)
    monkeypatch.setattr(enginefile, "l4t", lambda: "36.5.0")
    with pytest.raises(EngineFault, match=r"stale: l4t: found 'none', expected '36.5.0'.*`stillwatch model build"):
        TensorRtRuntime(model, world.gpu, precision="fp16", may_build=False)
    again = TensorRtRuntime(model, world.gpu)
    assert any("stale: l4t" in note and "built anew" in note for note in again.notes)
    assert TensorRtRuntime(model, world.gpu, may_build=False).notes == ()


@pytest.mark.parametrize("change", ["plan", "header", "cut", "empty"])
def test_a_damaged_file_never_reaches_tensorrt(world: World, model: Model, folder: Path, change: str) -> None:
    """The stand-in raises ContractBroken when it is given a damaged plan; the real one may crash."""
    TensorRtRuntime(model, world.gpu)
    file = folder / "select_rows-fp16.engine"
    content = bytearray(file.read_bytes())
    if change == "plan":
        content[-1000] ^= 1
    elif change == "header":
        content[20] ^= 255
    file.write_bytes({"cut": content[:-7], "empty": b""}.get(change, bytes(content)))
    again = TensorRtRuntime(model, world.gpu)
    assert any("damaged" in note and str(file) in note for note in again.notes)
    assert TensorRtRuntime(model, world.gpu, may_build=False).notes == ()


def test_half_precision_that_strays_is_refused_with_numbers_and_float32_taken(
    world: World, model: Model, folder: Path
) -> None:
    world.faults.stray, world.faults.stray_only = 1.0, "FP16 BF16"
    runtime = TensorRtRuntime(model, world.gpu)
    assert runtime.precision is Precision.FP32
    assert runtime.memory.parts()["weights"].allocated == sum(
        len(one.plan or b"") for one in map(runtime._look, runtime.engines)
    )
    assert "fp16: outputs stray from ONNX Runtime's" in runtime.notes[0] and "NOT cosine ≥ 0.999" in runtime.notes[0]
    steps: list[str] = []
    later = TensorRtRuntime(model, world.gpu, watch=Watch(lambda step, done: steps.append(step)))
    assert later.precision is Precision.FP32 and not steps, "what was refused is built again at every start"
    assert "--again" in later.notes[0]
    world.faults.reset()
    assert TensorRtRuntime(model, world.gpu, again=True).precision is Precision.FP16


def test_where_fp16_strays_bf16_is_next(world: World, model: Model, folder: Path) -> None:
    world.faults.stray, world.faults.stray_only = 1.0, "FP16"
    runtime = TensorRtRuntime(model, world.gpu)
    assert runtime.precision is Precision.BF16 and runtime.notes[0].startswith("fp16: outputs stray")
    assert runtime.engines["select_rows"].dtype("patches") == np.float32
    assert [check["passed"] for check in runtime.checks] == [True] * (1 + len(runtime.rows))


def test_nothing_that_strays_is_ever_used(world: World, model: Model, folder: Path) -> None:
    world.faults.stray = float("nan")
    choice = choose_encoder(model, has=lambda name: True)
    assert choice.used.startswith("ONNX Runtime") and "fp16: outputs stray" in choice.not_taken[0]
    assert "fp32: outputs stray" in choice.not_taken[0]
    assert isinstance(choice.encoder(lambda: host(model)), OnnxEncoder)


def test_a_builder_that_runs_out_of_memory_is_given_less_workspace(world: World, model: Model, folder: Path) -> None:
    world.faults.build, world.faults.build_fits = "OutOfMemory (no further information)", 512 * MIB
    assert TensorRtRuntime(model, world.gpu).precision is Precision.FP16
    first, second, *_ = world.faults.workspaces
    assert first > 512 * MIB and second == first // 8


def test_a_build_that_fails_says_what_tensorrt_said(world: World, model: Model, folder: Path) -> None:
    world.faults.build = "Error Code 10: Could not find any implementation for node"
    choice = choose_encoder(model, has=lambda name: True)
    assert choice.runtime is None and "Could not find any implementation" in choice.not_taken[0]
    assert not list(folder.glob("*.engine"))


def test_a_graph_that_tensorrt_cannot_read_is_named(world: World, model: Model, tmp_path: Path) -> None:
    """ONNX Runtime's own form: its operators are nobody else's."""
    file = model.graph("select_rows")
    kept = file.read_bytes()
    file.write_bytes(model.graph("select_inplace").read_bytes())
    try:
        with pytest.raises(EngineFault, match=r"select_rows.onnx: TensorRT 10.3.0 can't read it: .*MultiHeadAttention"):
            TensorRtRuntime(model, world.gpu, precision="fp32", folder=tmp_path)
    finally:
        file.write_bytes(kept)


def test_timings_of_the_last_build_are_used_unless_they_are_of_another_release(model: Model, tmp_path: Path) -> None:
    for release in ("10.3.0", "10.13.3"):
        with simulated(release) as world:
            TensorRtRuntime(model, world.gpu, folder=tmp_path)
            file = tmp_path / f"timings-{release}-8.7.cache"
            assert release.encode() in file.read_bytes()
            file.write_bytes(b"not what TensorRT wrote")
            TensorRtRuntime(model, world.gpu, folder=tmp_path, again=True)
            assert release.encode() in file.read_bytes()


def test_whoever_watches_hears_steps_and_a_beat(
    world: World, model: Model, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        told: list[tuple[str, float | None]] = []
        watch = Watch(lambda step, done: told.append((step, done)), lambda: extend_start(60))
        TensorRtRuntime(model, world.gpu, watch=watch)
        assert systemd.recv(100) == b"EXTEND_TIMEOUT_USEC=60000000"
    parts = [done for step, done in told if step == "select_rows: Building engine"]
    assert parts == [0.5, 1.0]
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert not extend_start(60)


def test_what_a_callback_raises_is_swallowed_by_tensorrt_and_told_by_us(
    world: World, model: Model, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise BrokenPipeError("nobody listens")

    import tensorrt as trt

    class Careless(trt.IProgressMonitor):
        phase_start = step_complete = phase_finish = fails

    config = trt.Builder(trt.Logger()).create_builder_config()
    config.progress_monitor = Careless()
    trt.builder._report(config.progress_monitor)
    assert "nobody listens" in capsys.readouterr().out, "the stand-in swallows, as TensorRT does"
    runtime = TensorRtRuntime(model, world.gpu, watch=Watch(fails, fails))
    assert set(runtime.notes) == {
        "progress can't be told: BrokenPipeError: nobody listens",
        "that it takes longer can't be told: BrokenPipeError: nobody listens",
    }
    assert not capsys.readouterr().out, "a callback of ours has raised"


def test_two_builders_of_one_model_take_turns(world: World, model: Model, folder: Path) -> None:
    inside = 0
    most = 0

    def step(name: str, done: float | None) -> None:
        nonlocal inside, most
        if name.startswith("encode_full: reading"):
            inside += 1
            most = max(most, inside)
        elif name.startswith("comparing"):
            inside -= 1

    made: list[TensorRtRuntime] = []
    run = [
        threading.Thread(target=lambda: made.append(TensorRtRuntime(model, world.gpu, watch=Watch(step))))
        for _ in range(2)
    ]
    for thread in run:
        thread.start()
    for thread in run:
        thread.join()
    assert len(made) == 2 and most == 1
    assert sorted(len(one.notes) for one in made) == [0, 0]


def test_precisions_are_what_device_and_release_can_do() -> None:
    orin, thor = (8, 7), (11, 0)
    assert precisions(None, release_of("8.6.2"), orin) == (Precision.FP16, Precision.FP32)
    assert precisions(None, release_of("10.3.0"), orin) == (Precision.FP16, Precision.BF16, Precision.FP32)
    assert precisions("bf16", release_of("10.13.3"), thor) == (Precision.BF16,)
    assert precisions(None, release_of("11.4.0"), thor) == (Precision.FP32,)
    with pytest.raises(EngineFault, match=r"bf16: .* offers fp16, fp32"):
        precisions("bf16", release_of("8.6.2"), orin)
    with pytest.raises(EngineFault, match=r"fp8: .* offers fp16, bf16, fp32"):
        precisions("fp8", release_of("10.13.3"), thor)
    with pytest.raises(EngineFault, match=r"8.5.2 is too old: .*JetPack 6"):
        release_of("8.5.2")
    assert [row.since for row in TABLE] == sorted(row.since for row in TABLE)


def test_row_counts_and_workspace_have_sensible_values(model: Model) -> None:
    reference = load_model(Path(__file__).parents[1] / "engines" / "reference" / "model").manifest
    assert buckets(reference) == (16, 32, 56, 104, 200)
    assert buckets(model.manifest) == (4, 8)
    assert [workspace_bytes(free * MIB) // MIB for free in (10, 1000, 30000)] == [64, 500, 2048]


# Running.


@pytest.fixture
def runtime(world: World, model: Model, tmp_path_factory: pytest.TempPathFactory) -> TensorRtRuntime:
    return TensorRtRuntime(model, world.gpu, precision="fp16", folder=tmp_path_factory.getbasetemp() / "engines")


def test_a_frame_costs_one_copy_in_one_back_and_one_wait(world: World, runtime: TensorRtRuntime) -> None:
    encoder = TensorRtEncoder(runtime)
    expected = {
        "full": (FULL, {"upload": 1, "graph": 1, "readback": 1, "sync": 1}),
        "selective": (select(1, 2, 3), {"upload": 1, "graph": 1, "readback": 1, "sync": 1, "launch": 2}),
        "nothing": (select(), {}),
    }
    for plan, wanted in expected.values():
        before = world.machine.counts.copy()
        encoder.encode(picture(1), plan)
        assert dict(world.machine.counts - before) == wanted
    encoder.close()


def test_rows_that_fill_a_count_refresh_what_was_encoded_longest_ago(world: World, runtime: TensorRtRuntime) -> None:
    """In slots that were not asked for, features come to be those of the new picture; the coarse stay coarse."""
    encoder = TensorRtEncoder(runtime)
    encoder.encode(picture(1), FULL)
    before = encoder.encode(picture(1), select(0, 1, 2, 3)).features.copy()
    tokens = encoder.encode(picture(2), select(15))
    changed = np.flatnonzero(np.abs(tokens.features - before).max(axis=1) > 0.1)
    assert tokens.encoded == 4 and list(changed) == [4, 5, 6, 15]
    assert list(np.flatnonzero(encoder.encode(picture(2), select(coarse=(8,))).coarse)) == [8, 9, 12, 13]
    for number in range(6):
        tokens = encoder.encode(picture(3 + number), select(0))
        assert list(np.flatnonzero(tokens.coarse)) == [8, 9, 12, 13]
    encoder.close()


def test_nan_in_rows_that_are_replaced_stays_there_in_half_precision(world: World, runtime: TensorRtRuntime) -> None:
    found = []
    for rows in ([], [2, 3]):
        encoder = TensorRtEncoder(runtime, refresh=False)
        encoder.encode(picture(1), FULL)
        poison_rows(encoder, rows)
        found.append(encoder.encode(picture(2), select(2, 3)).features.copy())
        found.append(encoder.encode(picture(3), select(7)).features.copy())
        encoder.close()
    assert np.isfinite(found[0]).all() and np.isfinite(found[1]).all()
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[1], found[3])


@pytest.mark.parametrize(
    ("graphs", "said"), [(True, "cuGraphLaunch: CUDA error 719"), (False, "refused the execution: .*simulated failure")]
)
def test_after_a_failure_the_next_frame_is_full(
    world: World, runtime: TensorRtRuntime, graphs: bool, said: str
) -> None:
    encoder = TensorRtEncoder(runtime, graphs=graphs)
    encoder.encode(picture(1), FULL)
    world.faults.execute = world.libcuda.launches = 1
    with pytest.raises(EngineFault, match=said):
        encoder.encode(picture(2), select(1))
    world.faults.reset()
    world.libcuda.launches = 0
    tokens = encoder.encode(picture(3), select(5))
    assert tokens.encoded == TOKENS
    np.testing.assert_array_equal(tokens.features, encoder.encode_full(picture(3)))
    encoder.close()


def test_graphs_give_the_bits_of_queueing_and_are_done_without_where_they_fail(
    world: World, runtime: TensorRtRuntime
) -> None:
    encoders = {"graphs": TensorRtEncoder(runtime), "queued": TensorRtEncoder(runtime, graphs=False)}
    assert not runtime.notes
    world.libcuda.refuse = 900
    encoders["refused"] = TensorRtEncoder(runtime)
    assert "CUDA graphs can't be used" in runtime.notes[-1] and "900" in runtime.notes[-1]
    found: dict[str, list[NDArray[np.float32]]] = {}
    for name, encoder in encoders.items():
        before = world.machine.counts["graph"]
        plans = (FULL, select(1, 2), select(3, coarse=(8,)))
        found[name] = [encoder.encode(picture(i), plan).features.copy() for i, plan in enumerate(plans)]
        assert world.machine.counts["graph"] - before == (3 if name == "graphs" else 0)
        encoder.close()
    np.testing.assert_array_equal(found["graphs"], found["queued"])
    np.testing.assert_array_equal(found["refused"], found["queued"])


def test_an_encoder_works_in_whatever_thread_calls_it(world: World, runtime: TensorRtRuntime) -> None:
    encoder = TensorRtEncoder(runtime)
    found: list[Any] = []
    for plan in (FULL, select(1, 2)):
        thread = threading.Thread(target=lambda plan=plan: found.append(encoder.encode(picture(1), plan).encoded))
        thread.start()
        thread.join()
    assert found == [TOKENS, 4]
    encoder.close()


def test_memory_is_told_by_part_and_given_back(world: World, runtime: TensorRtRuntime) -> None:
    before = world.machine.used
    encoder = TensorRtEncoder(runtime)
    parts = runtime.memory.parts()
    assert parts["cache"].allocated == encoder.cache_bytes == 2 * SIZE.layers * TOKENS * SIZE.dim * 2
    assert set(parts) == {"weights", "scratch", "cache", "rows", "inputs", "outputs"}
    assert by_part({"camera": encoder})["camera"] > encoder.cache_bytes
    own = [usage for part, usage in parts.items() if part != "weights"]
    assert sum(usage.allocated for usage in own) <= world.machine.used - before
    encoder.encode_full(picture(1))
    assert runtime.memory.parts()["cache"].allocated == 2 * encoder.cache_bytes
    encoder.close()
    after = runtime.memory.parts()
    assert all(usage.allocated == 0 for part, usage in after.items() if part != "weights")
    assert after["cache"].peak >= 2 * encoder.cache_bytes


def test_a_camera_that_finds_no_memory_is_encoded_on_the_host(
    world: World, model: Model, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    choice = choose_encoder(model, has=lambda name: True)
    assert choice.runtime is not None
    used = world.machine.used
    world.machine.budget = used + 20_000
    assert isinstance(choice.encoder(lambda: host(model)), OnnxEncoder)
    assert world.machine.used == used, "what was allocated before memory ran out stays taken"
    with pytest.raises(EngineFault, match=r"GPU memory: .* MB for `.*` can't be had, .* MB are free"):
        TensorRtEncoder(choice.runtime)
    world.machine.budget = 2**32
    encoder = choice.encoder(lambda: host(model))
    assert isinstance(encoder, FallbackEncoder) and choice.used == "TensorRT 10.3.0 (fp16) on Orin (simulated)"
    encoder.close()


def test_a_camera_that_is_taken_out_gives_its_memory_back(world: World, model: Model, folder: Path) -> None:
    def used() -> int:
        gc.collect()
        return sum(len(one.buffer) for one in world.machine._allocations.values() if one.kind == "device")

    choice = choose_encoder(model, has=lambda name: True)
    before, leaked = used(), world.machine.counts["leaked"]
    encoder = choice.encoder(lambda: host(model))
    encoder.encode(picture(1), FULL)
    assert used() > before
    encoder.close()
    assert (used(), world.machine.counts["leaked"]) == (before, leaked)


def test_a_gpu_that_goes_on_failing_is_given_up_and_that_is_told(
    world: World, runtime: TensorRtRuntime, model: Model
) -> None:
    told: list[str] = []
    encoder = FallbackEncoder(TensorRtEncoder(runtime), lambda: host(model), told.append)
    encoder.encode(picture(1), FULL)
    world.libcuda.launches = PATIENCE - 1
    for _ in range(PATIENCE - 1):
        with pytest.raises(EngineFault):
            encoder.encode(picture(2), select(1))
    assert encoder.encode(picture(2), select(1)).encoded == TOKENS and not told, "a success ends the count"
    world.libcuda.launches = 99
    for _ in range(PATIENCE - 1):
        with pytest.raises(EngineFault):
            encoder.encode(picture(3), select(1))
    tokens = encoder.encode(picture(3), select(1))
    assert tokens.encoded == TOKENS and encoder.encode(picture(4), select(1, 2)).encoded == 2
    np.testing.assert_array_equal(tokens.grid, encoder.grid)
    assert told == [encoder.degraded] and "ONNX Runtime on the CPU does its work" in told[0]


class HalfBroken(TensorRtEncoder):
    """Encodes in full only."""

    def _encode_some(self, *_: Any) -> int:
        raise EngineFault("the rows")


def test_a_selective_form_that_always_fails_is_given_up_though_full_encodes_between_succeed(
    runtime: TensorRtRuntime, model: Model
) -> None:
    told: list[str] = []
    encoder = FallbackEncoder(HalfBroken(runtime), lambda: host(model), told.append)
    encoder.encode(picture(1), FULL)
    for _ in range(PATIENCE - 1):
        with pytest.raises(EngineFault, match="the rows"):
            encoder.encode(picture(2), select(1))
        assert encoder.encode(picture(2), select(1)).encoded == TOKENS, "what follows a failure is full"
        assert encoder.encode(picture(2), select()).encoded == 0, "nothing to encode is no success of that form"
    assert encoder.encode(picture(3), select(1)).encoded == TOKENS
    assert told == [encoder.degraded] and told[0].startswith("selective encoding failed 3 times in a row (the rows)")
    assert encoder.encode(picture(4), select(1)).encoded == 1


def test_what_pycuda_raises_is_counted_too_and_a_context_that_is_gone_does_not_stop_the_change(
    world: World, runtime: TensorRtRuntime, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pycuda import driver

    def gone(_: object) -> None:
        raise driver.LogicError("cuCtxPushCurrent failed: context is destroyed")

    told: list[str] = []
    first = TensorRtEncoder(runtime)
    encoder = FallbackEncoder(first, lambda: host(model), told.append)
    gc.collect()  # what earlier tests left could not be let go of meanwhile
    with monkeypatch.context() as patch:
        patch.setattr(driver.Context, "push", gone)
        for _ in range(PATIENCE - 1):
            with pytest.raises(EngineFault, match="LogicError: cuCtxPushCurrent failed"):
                encoder.encode(picture(1), FULL)
        assert encoder.encode(picture(1), FULL).encoded == TOKENS
        assert told == [encoder.degraded] and "context is destroyed" in told[0]
    first.close()


# Choosing.


def test_each_missing_part_is_named_with_what_brings_it(model: Model, folder: Path) -> None:
    none = choose_encoder(model, has=lambda name: False)
    assert none.used.startswith("ONNX Runtime") and "python3-libnvinfer" in none.not_taken[0]
    half = choose_encoder(model, has=lambda name: name == "tensorrt")
    assert "pip install 'stillwatch[jetson]'" in half.not_taken[0]


def test_an_engine_that_was_not_built_yet_is_said_with_the_command(world: World, model: Model, folder: Path) -> None:
    choice = choose_encoder(model, has=lambda name: True, may_build=False)
    assert "not built yet" in choice.not_taken[0] and "`stillwatch model build random`" in choice.not_taken[0]


def test_a_place_that_cannot_be_written_costs_speed_only(
    world: World, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STILLWATCH_ENGINES", str(tmp_path / "file"))
    choice = choose_encoder(model, has=lambda name: True)
    assert choice.runtime is None and "can't be written" in choice.not_taken[0]


def test_bindings_that_are_not_as_we_know_them_cost_speed_only(
    world: World, model: Model, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorrt as trt

    monkeypatch.delattr(trt.IBuilderConfig, "set_memory_pool_limit")
    choice = choose_encoder(model, has=lambda name: True)
    assert choice.runtime is None and "AttributeError" in choice.not_taken[0]


def test_model_build_builds_verifies_and_reports(world: World, model: Model, folder: Path) -> None:
    done = CliRunner().invoke(models.app, ["build", str(model.folder), "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    encoder, decoder = report["encoder"], report["decoder"]
    assert encoder["precision"] == "fp16" and encoder["rows"] == [4, 8] and len(encoder["checks"]) == 3
    assert decoder["precision"] == "fp16" and len(decoder["checks"]) == len(decoder["rows"])
    names = ("encode_full", "select_rows", "decode_rows")
    assert {file.name for file in folder.glob("*.engine")} == {f"{name}-fp16.engine" for name in names}
    again = CliRunner().invoke(models.app, ["build", str(model.folder)])
    assert "decoder: fp16, rows 1, 8" in again.stdout and "as expected" in again.stdout
    enginefile.discard("random")
    assert not folder.exists()


def test_an_encoder_is_kept_when_the_decoder_has_no_engine(world: World, model: Model, folder: Path) -> None:
    file = model.graph("decode_rows")
    kept = file.read_bytes()
    file.write_bytes(model.graph("select_inplace").read_bytes())
    try:
        done = CliRunner().invoke(models.app, ["build", str(model.folder), "--json"])
    finally:
        file.write_bytes(kept)
    report = json.loads(done.stdout)
    assert done.exit_code == 1 and isinstance(done.exception, EngineFault)
    assert report["encoder"]["precision"] == "fp16" and "can't read it" in report["decoder"]["fault"]
    assert (folder / "select_rows-fp16.engine").is_file()


# The stand-in is as strict as the real one.


def raw_context(world: World, runtime: TensorRtRuntime, profile: int = 0) -> Any:
    import tensorrt as trt

    engine = runtime.engines["select_rows"].raw
    return engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)


def test_the_stand_in_refuses_what_tensorrt_refuses(world: World, runtime: TensorRtRuntime) -> None:
    with world.gpu.active():
        first, context, stream = raw_context(world, runtime), raw_context(world, runtime), world.gpu.stream()
        assert context.set_input_shape("patches", (4, 588)) is False, "only a first context has a profile by itself"
        assert context.set_optimization_profile_async(0, stream.handle) is True
        assert context.set_input_shape("patches", (5, 588)) is False, "5 rows are outside a profile of 4"
        assert context.set_input_shape("patches", (4, 588)) is True
        assert set(context.infer_shapes()) == {"position", "row_bias"}
        assert context.execute_async_v3(stream.handle) is False, "shapes are missing"
        assert context.set_tensor_address("patch", 256) is False, "there is no such tensor"
        assert context.set_tensor_address("patches", 257) is False, "not aligned to 256 bytes"
        with pytest.raises(TypeError):
            context.set_tensor_address("patches", None)
        with pytest.raises(TypeError):
            context.execute_async_v3(stream_handle=stream.handle, flags=0)
        with pytest.raises(RuntimeError):
            context.set_optimization_profile_async(7, stream.handle)
        assert context.set_input_shape("position", (4, 4)) and context.set_input_shape("row_bias", (4,))
        assert context.execute_async_v3(stream.handle) is False, "addresses are missing"
        del context, first


def test_the_stand_in_refuses_a_thread_without_the_primary_context(world: World, runtime: TensorRtRuntime) -> None:
    import pycuda.driver as driver
    from simulated_cuda import ContractBroken

    with pytest.raises(ContractBroken, match="no CUDA context is current"):
        raw_context(world, runtime)
    own = driver.Device(0).make_context()
    try:
        with pytest.raises(ContractBroken, match="another context than the primary one"):
            raw_context(world, runtime)
    finally:
        own.pop()


def test_reading_before_waiting_finds_what_was_there(world: World, runtime: TensorRtRuntime) -> None:
    encoder = TensorRtEncoder(runtime)
    with world.gpu.active():
        encoder._pixels.views["patches"][:] = encoder._pre.patches(picture(1))
        encoder._gpu.upload(encoder._inputs, encoder._pixels.used, encoder._stream)
        before = encoder._read.copy()
        encoder._full.run()
        encoder._gpu.download(encoder._read, encoder._outputs, encoder._stream)
        early = encoder._read.copy()
        encoder._stream.synchronize()
        assert np.array_equal(early, before) and not np.array_equal(early, encoder._read)
    encoder.close()


@pytest.mark.parametrize(
    ("release", "absent"),
    [
        ("8.6.2", ["IProgressMonitor", "BuilderFlag.BF16", "DataType.INT64", "ICudaEngine.device_memory_size_v2"]),
        (
            "11.4.0",
            ["BuilderFlag.FP16", "NetworkDefinitionCreationFlag.EXPLICIT_BATCH", "ICudaEngine.device_memory_size"],
        ),
    ],
)
def test_the_stand_in_lacks_what_a_release_lacks(release: str, absent: list[str]) -> None:
    with simulated(release):
        trt = importlib.import_module("tensorrt")
        for name in absent:
            first, _, member = name.partition(".")
            assert not hasattr(getattr(trt, first) if member else trt, member or first), name


def test_no_module_of_a_jetson_is_imported_by_ours() -> None:
    """Neither `tensorrt` nor `pycuda` is loaded by importing anything of the engines."""
    code = (
        "import engines.tensorrt.runtime, engines.tensorrt.encoder, engines.tensorrt.cuda, agent.runtimes, sys; "
        "print([m for m in ('tensorrt', 'pycuda', 'vpi') if m in sys.modules])"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=os.environ, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
