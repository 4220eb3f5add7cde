"""Our CUDA kernels: loaded through PyCUDA, launched on a stream, nothing waited for.

A method takes device addresses (int, or what int() turns into one, such as `pycuda.driver.DeviceAllocation`), sizes,
and last the stream (`pycuda.driver.Stream`; None = the default stream). It returns as soon as the launch is queued:
arrays must live, and must not be read or rewritten, until the stream has got there. Arrays are packed, C order, unless
a pitch (bytes per row) is asked for; allocations of CUDA are aligned well enough, parts of them to 16 bytes where a row
is said to be copied in units of 16. An empty launch (n = 0) is no launch. Mapped host memory works everywhere, but
Orin's GPU doesn't cache it (documented): a frame, whose pixels are read several times, is better copied to the device.

A context must be current in the calling thread, at `load` as at every launch; functions belong to the context in which
they were loaded. Results equal those of `vpi_ops.host.HostOps` within what docs/jetson.md states per kernel.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, SupportsInt

import structlog

from config.errors import EngineFault
from vpi_ops import kernels
from vpi_ops.kernels.resampling import Resampling

Address = SupportsInt
_log = structlog.get_logger(__name__)

LARGEST_PATCH = 32
"""Pixels along a patch: a warp keeps the differences of a half-size patch in 256 bytes."""
TOP_SHARE = 0.2
LEVEL_WEIGHTS = (1.15, 1.4)
EXPOSURE_SHARE = 0.35
EXPOSURE_GATE = 10.0
NOISE_PEAK = 8.0
EXPOSURE_FLOOR = 1.0
"""As in `vpi_ops.host`; a test compares them."""

_SAMPLED = "PiiiPiiiii"
SIGNATURES = {
    "picture": _SAMPLED + "P",
    "patches_f32": _SAMPLED + "PiiiffffffP",
    "patches_f16": _SAMPLED + "PiiiffffffP",
    "grey": _SAMPLED + "Pi",
    "pyramid_down": "PiiiPi",
    "fill": "PiiiiPPP",
    "exposure": "PPifP",
    "residual": "PPPPPPiiiiifffffPP",
    "moved": "PPiiiffP",
    "histogram": "PiP",
    "consistency": "PPiiffP",
    "compose": "PPiiffiP",
    "warp_bilinear_f32": "PiiiPPP",
    "warp_nearest_f32": "PiiiPPP",
    "warp_nearest_f16": "PiiiPPP",
    "blend": "PPPi",
    "scatter_rows_16": "PPPPiiii",
    "scatter_rows_4": "PPPPiiii",
    "scatter_rows_1": "PPPPiiii",
}
"""Arguments of each kernel as PyCUDA's `prepare` wants them: P address, i int32, f float32. A test compares them with
the sources."""


class Module(Protocol):
    """What is needed of `pycuda.driver.Module`."""

    def get_function(self, name: str) -> Any: ...


@dataclass(frozen=True, slots=True)
class Sampled:
    """A frame on the device and the picture that is sampled from it.

    frame: address of uint8 RGB rows of `pitch` bytes. tables: address of `resampling.tables`, uploaded once per
    geometry. origin: (x, y), the first pixel of the part of the frame that is shown. padding: RGB where the picture
    shows no frame. A picture itself is sampled by `Resampling.interpolating(size, size)`, which copies.
    """

    frame: Address
    pitch: int
    tables: Address
    resampling: Resampling
    origin: tuple[int, int] = (0, 0)
    padding: tuple[int, int, int] = (0, 0, 0)

    @property
    def arguments(self) -> tuple[int, ...]:
        width, height = self.resampling.size
        red, green, blue = self.padding
        taps = (self.resampling.x.taps, self.resampling.y.taps)
        packed = red | green << 8 | blue << 16
        return (int(self.frame), self.pitch, *self.origin, int(self.tables), *taps, width, height, packed)


@dataclass(frozen=True, slots=True)
class PatchFormat:
    """What the encoder reads. patch: pixels along a patch. cols: patches in a row of the picture. scale, shift: per
    channel, value = scale · pixel + shift, so 1 / (255 · std) and −mean / std. half: float16, else float32."""

    patch: int
    cols: int
    scale: tuple[float, float, float]
    shift: tuple[float, float, float]
    half: bool


class Kernels:
    """The kernels of one module in one context. origin: a sentence on where they come from. context: PyCUDA's, made
    current to unload the module; in no other can that be done."""

    def __init__(self, module: Module, origin: str, context: Any = None) -> None:
        self.origin = origin
        self._module = [module]  # functions die with their module
        self._functions = {name: module.get_function(name).prepare(types) for name, types in SIGNATURES.items()}
        if context is not None:
            weakref.finalize(self, _unload, context, self._module, self._functions).atexit = False

    # From the frame.

    def picture(self, sampled: Sampled, out: Address, stream: Any) -> None:
        """The model picture, uint8 RGB (height, width, 3), as `Preprocessor.picture` makes it."""
        width, height = sampled.resampling.size
        self._launch("picture", _tiles(width, height), (32, 8, 1), stream, *sampled.arguments, int(out))

    def patches(
        self, sampled: Sampled, slots: Address, fine: int, coarse: int, format: PatchFormat, out: Address, stream: Any
    ) -> None:
        """Normalised patches (fine + coarse, 3·p·p), float16 or float32, straight from the frame: elements in the order
        (channel, y, x). Pixels are those of `picture`, rounded to 8 bits, so that both show the encoder the same.

        slots: int32 (fine + coarse,): flat slots of fine tokens, then the first slots of 2×2 cells, whose pixels are
        means of four. A slot of −1 fills a bucket: its row is zeros.
        """
        name = "patches_f16" if format.half else "patches_f32"
        numbers = (fine, format.patch, format.cols, *format.scale, *format.shift)
        self._launch(name, (fine + coarse, 1), (256, 1, 1), stream, *sampled.arguments, int(slots), *numbers, int(out))

    def grey(self, sampled: Sampled, out: Address, pitch: int, stream: Any) -> None:
        """The grey image uint8 of `sampled`, rows of `pitch` bytes, as `HostOps.analysis` makes it."""
        width, height = sampled.resampling.size
        self._launch("grey", _tiles(width, height), (32, 8, 1), stream, *sampled.arguments, int(out), pitch)

    def pyramid_down(
        self, image: Address, size: tuple[int, int], pitch: int, out: Address, out_pitch: int, stream: Any
    ) -> None:
        """The next level of a grey pyramid, uint8 ((w + 1) // 2, (h + 1) // 2), smoothed: equal to cv2.pyrDown."""
        width, height = size
        grid = _tiles((width + 1) // 2, (height + 1) // 2)
        self._launch("pyramid_down", grid, (32, 8, 1), stream, int(image), width, height, pitch, int(out), out_pitch)

    # Patch pyramids: half (T, a·a, 3) and quarter (T, b·b, 3) uint8, means (T,) float32; (a, b) = `sides(patch)`.

    def fill(
        self,
        picture: Address,
        grid: tuple[int, int],
        patch: int,
        half: Address,
        quarter: Address,
        means: Address,
        stream: Any,
    ) -> None:
        """`VisionOps.fill`: a picture uint8 (rows · p, cols · p, 3) into both levels and the mean grey of each patch.
        Raises ValueError for a patch above `LARGEST_PATCH`."""
        a, b = sides(patch)
        rows, cols = grid
        arguments = (int(picture), cols, patch, a, b, int(half), int(quarter), int(means))
        self._launch("fill", (cols, rows), (64, 1, 1), stream, *arguments)

    def exposure(self, reference: Address, current: Address, tokens: int, out: Address, stream: Any) -> None:
        """`fit_exposure` of patch means float32 (T,) into `out`, float32 (2,): gain, offset; 1 and 0 when there is
        nothing to fit. T at most 4096."""
        if not 0 < tokens <= 4096:
            raise ValueError(f"{tokens} tokens, expected 1 to 4096")
        arguments = (int(reference), int(current), tokens, EXPOSURE_FLOOR, int(out))
        self._launch("exposure", (1, 1), (512, 1, 1), stream, *arguments)

    def residual(
        self,
        current: tuple[Address, Address],
        reference: tuple[Address, Address],
        n: int,
        patch: int,
        out: Address,
        stream: Any,
        *,
        exposure: Address = 0,
        slots: Address = 0,
        sources: Address = 0,
    ) -> None:
        """`VisionOps.residual` of n patches, float32 (n,), grey levels; levels are (half, quarter). exposure: what
        `exposure` wrote; without it this is `residual_at`. slots, sources: int32 (n,), which patches of current and of
        reference; 0 = the first n in order."""
        a, b = sides(patch)
        pixels = (a * a, b * b)
        arguments = (
            *(int(level) for level in (*current, *reference)),
            *(int(slots), int(sources), n, *pixels, *(_kept(p) for p in pixels)),
            *(*LEVEL_WEIGHTS, NOISE_PEAK, EXPOSURE_GATE, EXPOSURE_SHARE, int(exposure), int(out)),
        )
        self._launch("residual", (-(-n // 4), 1), (128, 1, 1), stream, *arguments)

    def moved(self, current: Address, previous: Address, n: int, patch: int, out: Address, stream: Any) -> None:
        """`VisionOps.moved`, float32 (n,), of two quarter levels."""
        pixels = sides(patch)[1] ** 2
        arguments = (int(current), int(previous), n, pixels, _kept(pixels), LEVEL_WEIGHTS[1], NOISE_PEAK, int(out))
        self._launch("moved", (-(-n // 4), 1), (128, 1, 1), stream, *arguments)

    def histogram(self, rgb: Address, pixels: int, out: Address, stream: Any) -> None:
        """HSV 8×8×8 histogram, float32 (512,), sum 1, of packed uint8 RGB pixels; a quarter level, say."""
        self._launch("histogram", (1, 1), (1024, 1, 1), stream, int(rgb), pixels, int(out))

    # Flow: float32 (h, w, 2), (x, y) in pixels of the image; `cell`: pixels per vector of the field.

    def consistency(
        self,
        backward: Address,
        forward: Address,
        size: tuple[int, int],
        out: Address,
        stream: Any,
        *,
        cell: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        """`|backward(p) + forward(p + backward(p))|`, float32 (h, w); outside the image forward counts as 0."""
        arguments = (int(backward), int(forward), *size, *cell, int(out))
        self._launch("consistency", _tiles(*size), (32, 8, 1), stream, *arguments)

    def compose(
        self,
        flow: Address,
        before: Address,
        size: tuple[int, int],
        out: Address,
        stream: Any,
        *,
        cell: tuple[float, float] = (1.0, 1.0),
        clamp: bool = False,
    ) -> None:
        """`flow(p) + before(p + flow(p))`, float32 (h, w, 2). Outside the field: NaN, or with `clamp` its edge."""
        arguments = (int(flow), int(before), *size, *cell, int(clamp), int(out))
        self._launch("compose", _tiles(*size), (32, 8, 1), stream, *arguments)

    # Token maps.

    def warp(
        self,
        values: Address,
        grid: tuple[int, int],
        dim: int,
        source: Address,
        n: int,
        out: Address,
        valid: Address,
        stream: Any,
        *,
        half: bool = False,
        nearest: bool = False,
    ) -> None:
        """`VisionOps.warp`: values (T, D) at n positions `source` float32 (n, 2) = (row, col), clamped to the grid,
        into `out` (n, D); nearest: the token there, not a mixture. valid: uint8 (n,), 1 where the position lies in the
        grid, 0 where it was clamped or is NaN; address 0 = not wanted. float32, or, of the nearest, float16 with
        `half`. D in fours. Raises ValueError for a mixture of float16."""
        _check_fours(dim)
        if half and not nearest:
            raise ValueError("tokens of half precision are taken as they are (nearest), not mixed")
        name = f"warp_nearest_{'f16' if half else 'f32'}" if nearest else "warp_bilinear_f32"
        arguments = (int(values), *grid, dim, int(source), int(out), int(valid))
        self._launch(name, (n, 1), (min(256, _up(dim // 4, 32)), 1, 1), stream, *arguments)

    def blend(self, accumulated: Address, new: Address, alpha: Address, tokens: int, dim: int, stream: Any) -> None:
        """`VisionOps.blend` in place: accumulated and new float32 (T, D), alpha float32 (T,). D in fours."""
        _check_fours(dim)
        arguments = (int(accumulated), int(new), int(alpha), dim)
        self._launch("blend", (tokens, 1), (min(256, _up(dim // 4, 32)), 1, 1), stream, *arguments)

    def scatter_rows(
        self,
        new: Address,
        cache: Address,
        index: Address,
        source: Address,
        n: int,
        stream: Any,
        *,
        planes: int,
        row_bytes: int,
        new_rows: int,
        cache_rows: int,
    ) -> None:
        """Write rows into a cache: for each plane and j < n, `cache[plane, index[j]] = new[plane, source[j]]`.

        new: (planes, new_rows, row_bytes), cache: (planes, cache_rows, row_bytes), bytes of any type. index, source:
        int32 (n,); source 0 = row j itself. So `select_rows` of one layer's keys, (H, bucket, dh), goes into (H, T, dh)
        with planes = H; of all layers at once with planes = L · 2 · H, where they lie in one block. Rows of a bucket
        that nothing names stay out. The same moves rows within a cache (no row may be both read and written), takes
        features over, and adopts patches of a pyramid. Copied in units of 16 bytes where row length and addresses
        allow, else 4, else 1.
        """
        unit = next(u for u in (16, 4, 1) if not (row_bytes | int(new) | int(cache)) % u)
        arguments = (int(new), int(cache), int(index), int(source), n)
        sizes = (new_rows, cache_rows, row_bytes // unit)
        blocks = -(-n * (row_bytes // unit) // 256)
        self._launch(f"scatter_rows_{unit}", (blocks, planes), (256, 1, 1), stream, *arguments, *sizes)

    def _launch(
        self, name: str, grid: tuple[int, int], block: tuple[int, int, int], stream: Any, *arguments: float
    ) -> None:
        if grid[0] and grid[1]:
            self._functions[name].prepared_async_call(grid, block, stream, *arguments)


def _unload(context: Any, modules: list[Module], functions: dict[str, Any]) -> None:
    context.push()
    try:
        functions.clear()
        modules.clear()
    finally:
        context.pop()


def sides(patch: int) -> tuple[int, int]:
    """Pixels along a patch at half and quarter size. Raises ValueError above `LARGEST_PATCH`."""
    if not 0 < patch <= LARGEST_PATCH:
        raise ValueError(f"patches of {patch} pixels, expected 1 to {LARGEST_PATCH}")
    return max(1, round(patch / 2)), max(1, round(patch / 4))


def load(folders: Sequence[Path] | None = None) -> Kernels:
    """The kernels for the device of the current context: built ahead (`scripts/build-kernels`), compiled here before,
    or compiled now with nvcc, for some seconds, and kept for the next start.

    folders: where to look, and to the last of which to write; default: what came with the package, then the cache.
    Raises ImportError without PyCUDA, EngineFault when nothing can be loaded or compiled.
    """
    try:
        from pycuda import driver
    except ImportError as error:
        raise ImportError(
            "CUDA kernels need PyCUDA: pip install 'stillwatch[jetson]' (compiles for minutes)"
        ) from error
    places = list(folders or (kernels.BUILT, kernels.cache_folder()))
    toolkit: kernels.Version = driver.get_version()[:2]
    newest = max(toolkit, divmod(driver.get_driver_version() // 10, 100))
    context = driver.Context.get_current()
    major, minor = driver.Context.get_device().compute_capability()
    architecture = f"sm_{major}{minor}"
    for file in kernels.found(places, newest, architecture):
        try:
            return Kernels(driver.module_from_buffer(file.read_bytes()), str(file), context)
        except driver.Error as error:  # made for another architecture, or damaged
            _log.warning("kernels_unloadable", file=str(file), error=str(error))
    code = _compile(architecture)
    target = places[-1] / kernels.cubin_name(toolkit, architecture)
    try:
        origin = f"compiled here for {architecture}, kept in {target}"
        made = Kernels(driver.module_from_buffer(code), origin, context)
    except driver.Error as error:
        raise EngineFault(f"what nvcc made of the kernels for {architecture} can't be loaded: {error}") from error
    kernels.keep(target, code)
    return made


def _compile(architecture: str) -> bytes:
    from pycuda import compiler, driver

    nvcc = kernels.find_nvcc()
    if nvcc is None:
        raise EngineFault(
            "no kernels were built for this device and there is no nvcc; install the CUDA toolkit of JetPack "
            "(apt install nvidia-jetpack; or set NVCC), or run scripts/build-kernels where there is one"
        )
    try:
        code: bytes = compiler.compile(
            kernels.ENTRY.read_text(encoding="utf-8"),
            nvcc=str(nvcc),
            options=list(kernels.OPTIONS),
            no_extern_c=True,
            arch=architecture,
            cache_dir=False,
            include_dirs=[str(kernels.FOLDER)],
        )
    except driver.Error as error:
        raise EngineFault(f"nvcc can't compile the kernels for {architecture}: {error}") from error
    return code


def _tiles(width: int, height: int) -> tuple[int, int]:
    return -(-width // 32), -(-height // 8)


def _up(number: int, step: int) -> int:
    return -(-number // step) * step


def _kept(pixels: int) -> int:
    return max(1, round(TOP_SHARE * pixels))


def _check_fours(dim: int) -> None:
    if dim % 4:
        raise ValueError(f"features of {dim} values, expected a multiple of 4")
