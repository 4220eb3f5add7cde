"""The traps of NVIDIA's and PyCUDA's modules, documented or known from their sources, one test each: the product goes
round it, and the stand-in has it (else the test would prove nothing). Those of TensorRT: `test_tensorrt.py`; a broken
extension, None for ever, the end of a file, the upside-down CSI camera: `test_jetson_capture.py`."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from coherence_standin import texture
from numpy.typing import NDArray

from agent.capture import open_source
from agent.capture.jetson_camera import CameraOptions, FrameExpired, RingCamera, import_jetson_utils
from config.errors import EndOfStream, SourceError

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("jetson")


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Iterator[RingCamera]:
    opened = RingCamera(CameraOptions("v4l2:///dev/video0", "cam", rate=200.0))
    yield opened
    opened.close()


def images(size: tuple[int, int] = (320, 180), shift: int = 3) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Two grey images of (width, height); the picture moves right by `shift` pixels."""
    wide = np.asarray(cv2.cvtColor(texture(5, (size[0] + shift, size[1])), cv2.COLOR_RGB2GRAY), np.uint8)
    return np.ascontiguousarray(wide[:, shift:]), np.ascontiguousarray(wide[:, : size[0]])


@lru_cache
def product() -> list[ast.AST]:
    packages = (ROOT / package for package in ("agent", "engines", "vpi_ops", "config"))
    files = [file for package in packages for file in package.rglob("*.py")]
    return [node for file in files for node in ast.walk(ast.parse(file.read_text()))]


def test_functions_that_the_package_replaces_are_taken_from_the_extension() -> None:
    import jetson_utils
    import jetson_utils_python

    with pytest.raises(NameError):
        jetson_utils.cudaAllocMapped((4, 4))
    assert import_jetson_utils() is jetson_utils_python


def test_the_end_of_a_camera_is_a_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orders = tmp_path / "orders.json"
    orders.write_text(json.dumps({"does": "end", "after": 1}))
    monkeypatch.setenv("JETSON_SIM_CAMERA", str(orders))
    with (
        pytest.raises(SourceError) as caught,
        open_source("rtsp://a.invalid/1#capture=thread", source_id="c") as source,
    ):
        for _ in range(5):
            source.read(5)
    assert "failed to capture" in str(caught.value) and not isinstance(caught.value, EndOfStream)


def test_a_picture_in_the_ring_is_refused_once_it_is_overwritten(camera: RingCamera) -> None:
    first = camera.capture(1.0)
    assert first is not None
    out, address = np.empty((64, 96, 3), np.uint8), first.pointer
    for _ in range(4):
        first.copy_into(out)
        last = camera.capture(1.0)
        assert last is not None
    assert last.pointer == address  # the ring has gone round
    with pytest.raises(FrameExpired, match="overwritten"):
        first.copy_into(out)
    with pytest.raises(FrameExpired):
        first.lease()


def test_a_leased_picture_stops_the_ring_and_outlives_its_source(camera: RingCamera) -> None:
    first = camera.capture(1.0)
    assert first is not None
    image = first.lease()
    before = image.copy()
    for _ in range(3):
        assert not camera.full
        camera.capture(1.0)
    assert camera.full
    with pytest.raises(RuntimeError, match="leased"):
        camera.capture(1.0)
    camera.close()
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("way", ["process", "thread"])
def test_another_size_ends_the_source_because_it_frees_every_earlier_picture(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = tmp_path / "orders.json"
    orders.write_text("{}")
    monkeypatch.setenv("JETSON_SIM_CAMERA", str(orders))
    with open_source(f"csi://0?size=96x64&capture={way}", source_id="cam") as source:
        source.read(5)
        orders.write_text(json.dumps({"size": [128, 96]}))
        with pytest.raises(SourceError, match=r"the picture is now \(128, 96\), was \(96, 64\)"):
            for _ in range(200):
                source.read(5)


def test_a_picture_is_read_after_its_conversion(camera: RingCamera, monkeypatch: pytest.MonkeyPatch) -> None:
    def seen() -> int:
        frame = camera.capture(1.0)
        assert frame is not None
        out = np.empty((64, 96, 3), np.uint8)
        frame.copy_into(out)
        return int(out[-1, -1, 2])

    assert seen() == 40
    monkeypatch.setattr(RingCamera, "_finish", lambda self: None)
    assert seen() == 0xA5  # what the memory held before


def test_the_leaking_interface_of_pictures_is_not_asked(camera: RingCamera, jetson: Any) -> None:
    before = jetson.counts["leaked dicts"]
    frame = camera.capture(1.0)
    assert frame is not None
    frame.copy_into(np.empty((64, 96, 3), np.uint8))
    frame.lease()
    assert jetson.counts["leaked dicts"] == before
    _ = frame._image.__cuda_array_interface__
    assert jetson.counts["leaked dicts"] == before + 1


def test_what_undecoded_pictures_opening_by_hand_and_windows_need_is_never_called() -> None:
    called = {
        (node.func.attr, *(argument.value for argument in node.keywords if argument.arg == "format"))
        for node in product()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    names = {name for name, *_ in called}
    assert not names & {"videoOutput", "Render", "Open", "cudaToNumpy", "cudaAllocMapped"}
    formats = [ast.literal_eval(given) for name, *rest in called if name == "Capture" for given in rest]
    assert formats and set(formats) == {"rgb8"}


def test_calls_that_are_gone_or_take_their_arguments_the_other_way_round_are_never_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """TensorRT 10 has no bindings by number, 11 no flags of precision but by our table; the names of the arguments of
    get_tensor_profile_values are swapped."""
    gone = {"execute_async", "execute_async_v2", "execute_v2", "build_engine", "build_cuda_engine", "num_bindings"}
    gone |= {"get_binding_index", "get_binding_shape", "get_binding_name", "binding_is_input", "max_workspace_size"}
    swapped = {"get_tensor_profile_values"}
    assert not {node.attr for node in product() if isinstance(node, ast.Attribute)} & (gone | swapped)
    for release in ("10.3.0", "11.4.0"):
        monkeypatch.setenv("STILLWATCH_SIM_TENSORRT", release)
        code = "import tensorrt as t; print([n for c in (t.ICudaEngine, t.IExecutionContext, t.Builder, "
        code += f"t.IBuilderConfig) for n in dir(c) if n in {gone | swapped}], t.__version__)"
        path = f"{ROOT / 'tests/jetson_sim'}{os.pathsep}{ROOT}"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
        )
        assert done.stdout.strip() == f"[] {release}", done.stderr


def test_one_source_belongs_to_one_thread(camera: RingCamera) -> None:
    camera.capture(1.0)
    with ThreadPoolExecutor(1) as pool, pytest.raises(AssertionError, match="two threads"):
        pool.submit(camera._source.Capture).result()


@pytest.mark.parametrize("spelling", ["gridsize", "gridSize"])
def test_the_grid_is_spelt_as_this_vpi_spells_it(spelling: str, make_ops: Callable[..., Any], behaviour: Any) -> None:
    behaviour.gridsize = spelling
    ops = make_ops()
    assert ops.uses_ofa
    assert np.median(ops.flow(*images(), (1.0, 1.0)).backward[..., 0]) == pytest.approx(-3, abs=0.2)


@pytest.mark.parametrize(("anchored", "sign"), [("frame", 1), ("frame", -1), ("ref", 1), ("ref", -1)])
def test_flow_is_backward_whichever_way_vpi_means_its_vectors(
    anchored: str, sign: int, make_ops: Callable[..., Any], behaviour: Any
) -> None:
    behaviour.anchored, behaviour.sign = anchored, sign
    ops = make_ops()
    assert ops.uses_ofa
    assert np.median(ops.flow(*images(), (1.0, 1.0)).backward[..., 0]) == pytest.approx(-3, abs=0.2)


@pytest.mark.parametrize(
    ("cuda", "vic", "route"),
    [
        (True, True, "RGB8 → Y8_ER_BL (CUDA)"),
        (False, True, "RGB8 → Y8_ER (CUDA) → Y8_ER_BL (VIC)"),
        (True, False, "RGB8 → Y8_ER_BL (CUDA)"),
        (False, False, None),
    ],
)
def test_images_get_block_linear_by_the_first_way_that_works(
    cuda: bool, vic: bool, route: str | None, behaviour: Any
) -> None:
    from vpi_ops.jetson import open_ops

    behaviour.cuda_to_block_linear, behaviour.vic = cuda, vic
    vision = open_ops()
    if route is None:
        assert vision.flow is None and "VPI_ERROR_NOT_IMPLEMENTED" in vision.flow_why[0]
    else:
        assert vision.flow is not None and vision.flow.endswith(route)


def test_pitch_linear_and_small_images_are_not_for_the_flow_engine(make_ops: Callable[..., Any]) -> None:
    import vpi

    ops = make_ops()
    pitch_linear, small = vpi.Format.Y8_ER, vpi.Format.Y8_ER_BL
    with ops.gpu.active():
        for size, format in (((64, 64), pitch_linear), ((64, 31), small)):
            pair = [vpi.Image(size, format) for _ in range(2)]
            with pytest.raises(RuntimeError, match=r"block-linear|32x32"):
                vpi.optflow_dense(*pair, backend=vpi.Backend.OFA)
        pair = [vpi.Image((64, 64), small) for _ in range(2)]
        with pytest.raises(RuntimeError, match="dense optical flow on CUDA"):
            vpi.optflow_dense(*pair, backend=vpi.Backend.CUDA)
    previous, current = images((64, 31), 2)
    assert ops.flow(previous, current, (1.0, 1.0)).backward.shape == (31, 64, 2)
    assert ops.uses_ofa


def test_images_wraps_and_vectors_are_made_once(make_ops: Callable[..., Any], behaviour: Any) -> None:
    ops = make_ops()
    previous, current = images()
    ops.flow(previous, current, (1.0, 1.0))
    before = dict(behaviour.counts)
    for _ in range(5):
        previous, current = current, current.copy()
        ops.flow(previous, current, (1.0, 1.0), (10, 10, 90, 90))
    after = {name: behaviour.counts[name] - before.get(name, 0) for name in behaviour.counts}
    assert (after["image"], after["wrap"]) == (0, 0)
    assert (after["flow"], after["readout"], after["sync"]) == (5, 5, 5)
    assert after["convert"] == 5  # the older image of a pair was the newer one of the pair before


def test_vectors_are_read_after_their_stream_and_are_gone_with_their_lock(make_ops: Callable[..., Any]) -> None:
    import vpi

    ops = make_ops()
    with ops.gpu.active():
        stream = vpi.Stream()
        pair = [vpi.Image((64, 64), vpi.Format.Y8_ER_BL) for _ in range(2)]
        vectors = vpi.optflow_dense(*pair, backend=vpi.Backend.OFA, stream=stream)
        with pytest.raises(RuntimeError, match=r"stream\.sync"), vectors.rlock_cpu():
            pass
        stream.sync()
        with vectors.rlock_cpu() as view:
            assert not view.any()
        assert view.any()  # garbage now


def test_every_thread_has_the_primary_context_current_and_leaves_its_stack_empty(
    make_ops: Callable[..., Any], jetson: Any
) -> None:
    import vpi

    ops, found = make_ops(), []

    def elsewhere() -> None:
        found.append(float(np.median(ops.flow(*images(), (1.0, 1.0)).backward[..., 0])))
        found.append(len(jetson.stack))
        with pytest.raises(RuntimeError, match="no CUDA context"):
            vpi.Image((64, 64), vpi.Format.U8)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [pytest.approx(-3, abs=0.2), 0] and not jetson.stack
    with ops.gpu.active():
        assert jetson.current.primary


def test_no_context_of_our_own_no_monitor_under_another_licence_and_no_missing_engine_is_used() -> None:
    imported, attributes = set(), set()
    for node in product():
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Attribute):
            attributes.add(node.attr)
    assert not {name for name in imported if name.startswith(("pycuda.auto", "jtop", "vpi."))}
    assert "pycuda.driver" in imported
    assert not attributes & {"DLA_core", "make_context", "NVENC", "PVA", "num_DLA_cores"}


EXIT = """
import sys
sys.path[:0] = {path}
from vpi_ops.jetson_memory import Gpu
gpu = Gpu()
kept = gpu.mapped((4,), 'u1')
{then}
"""


@pytest.mark.parametrize(("then", "status"), [("", 0), ("gpu._context.push()", 134)])
def test_a_process_ends_with_an_empty_stack_or_is_aborted(then: str, status: int) -> None:
    code = EXIT.format(path=[str(ROOT), *sys.path], then=then)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == status, done.stderr


def test_launches_take_tuples_and_addresses_only(make_ops: Callable[..., Any]) -> None:
    gpu, kernels = make_ops().gpu, make_ops().kernels
    with gpu.active():
        blend = kernels._module[0].get_function("blend")
        with pytest.raises(TypeError, match="parameter #0"):
            blend(5, block=(32, 1, 1))
        with pytest.raises(ValueError, match="must specify block size"):
            blend(np.uintp(5))
        blend.prepare("PPPii")
        with pytest.raises(AssertionError, match="no tuple"):
            blend.prepared_async_call((1, 1), [32, 1, 1], None, 0, 0, 0, 1, 4)
        kernels.blend(5, 5, 5, 1, 4, gpu.stream)
        with pytest.raises(AssertionError, match="no address of the device"):
            gpu.stream.synchronize()


def test_architectures_have_three_digits_too_and_do_not_load_each_others_code(
    jetson: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pycuda import driver

    from vpi_ops.jetson_memory import Gpu

    monkeypatch.setattr(jetson, "capability", (11, 0))
    gpu = Gpu()
    assert gpu.arch == "sm_110"
    with gpu.active(), pytest.raises(driver.LogicError, match="image is invalid"):
        driver.module_from_buffer(b"simulated cubin sm_87")


def test_what_kernels_write_is_not_there_before_the_wait(make_ops: Callable[..., Any]) -> None:
    ops = make_ops()
    pyramid = ops.pyramid((2, 2), 14)
    ops.fill(pyramid, np.full((28, 28, 3), 90, np.uint8))
    assert not pyramid.means.any()
    ops.gpu.settle()
    assert (pyramid.means == 90).all()
