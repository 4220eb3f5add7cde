"""The rendered camera: repeatable, and its truth is what can be measured in its pictures."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest
from capture_clock import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.capture.scene import Scene, random_still
from agent.capture.scene.draw import figure, measure
from agent.capture.scene.figure import new_look, shapes
from agent.capture.scene.palette import NOMINAL
from agent.capture.scene.source import SceneSource
from agent.capture.scene.still import new_figure
from agent.capture.scene.truth import ACTIONS, COLOURS, KINDS, PLACES
from agent.capture.scene.world import CAMERAS
from config.errors import ConfigError, EndOfStream, SourceError

FPS = 15
DOINGS = [a for a in ACTIONS if a not in ("driving", "parked", "left", "riding", "flying")]  # of people


def small(place: str = "street", seed: int = 1, **more: object) -> Scene:
    return Scene(place, seed, width=160, height=90, **more)  # type: ignore[arg-type]


@settings(max_examples=8, deadline=None)
@given(
    place=st.sampled_from(PLACES),
    camera=st.sampled_from(CAMERAS),
    seed=st.integers(0, 2**40),
    frames=st.lists(st.integers(0, 2000), min_size=2, max_size=4, unique=True),
)
def test_a_frame_depends_on_its_index_alone(place: str, camera: str, seed: int, frames: list[int]) -> None:
    there, back = small(place, seed, camera=camera), small(place, seed, camera=camera)
    first = {i: (there.render(i), there.truth(i), there.labels(i), there.flow(i)) for i in frames}
    for i in reversed(frames):
        image, truth, labels, flow = first[i]
        assert image.flags.c_contiguous and image.dtype == np.uint8 and image.shape == (90, 160, 3)
        np.testing.assert_array_equal(back.labels(i), labels)
        np.testing.assert_array_equal(back.flow(i), flow)
        assert back.truth(i) == truth
        np.testing.assert_array_equal(back.render(i), image)


def test_a_picture_handed_out_is_the_callers_own() -> None:
    scene = small()
    scene.render(0)[:] = 0
    scene.labels(0)[:] = 9
    assert scene.render(0).max() > 0
    assert scene.labels(0).max() != 9


def test_seeds_and_arguments_make_a_difference() -> None:
    plain = small().render(0)
    others = [small(seed=2), small("yard"), small(light="night"), small(weather="rain", light="day"), small(noise=5)]
    for other in others:
        assert np.abs(other.render(0).astype(int) - plain).mean() > 0.5


@pytest.mark.parametrize("index", [3 * 10**6, 10**9])
def test_any_moment_can_be_asked_for(index: int) -> None:
    scene = small(camera="pan")
    assert scene.render(index).std() > 1
    assert all(0 < o.id < 2**15 for i in range(index, index + 600, 60) for o in scene.truth(i).objects)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("camera", CAMERAS)
def test_truth_agrees_with_the_label_map(place: str, camera: str) -> None:
    scene = Scene(place, 11, camera=camera)
    whole = hidden = 0
    for index in range(0, 60 * FPS, 4 * FPS):
        truth, labels = scene.truth(index), scene.labels(index)
        assert {o.id for o in truth.objects} == set(np.unique(labels)) - {-1}
        assert len(truth.objects) <= 4
        for o in truth.objects:
            assert o.kind in KINDS and o.colour in COLOURS and o.action in ACTIONS and 0 < o.visible <= 1
            ys, xs = np.nonzero(labels == o.id)
            x, y, w, h = o.box
            assert xs.min() >= x - 1 and xs.max() <= x + w + 1 and ys.min() >= y - 1 and ys.max() <= y + h + 1
            if o.visible == 1:
                whole += 1
                found = (xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1)
                np.testing.assert_allclose(found, o.box, atol=2.5)
            hidden += o.visible < 0.9
    assert whole >= 4


def test_visible_is_the_share_that_is_neither_outside_nor_behind() -> None:
    """The visible pixels of each, and what is missing has a reason: the border or something nearer."""
    checked = 0
    for seed in range(40):
        _, truth, labels = random_still(np.random.default_rng([5, seed]))
        for o in truth.objects:
            x, y, w, h = o.box
            outside = x < 0 or y < 0 or x + w > 640 or y + h > 360
            crossed = any(
                p.id != o.id and p.box[0] < x + w and x < p.box[0] + p.box[2] and p.box[1] < y + h
                for p in truth.objects
            )
            if o.visible < 0.98:
                checked += 1
                assert outside or crossed
            if not outside and not crossed:
                assert o.visible == 1
                assert np.count_nonzero(labels == o.id) > 0.2 * w * h
    assert checked >= 5


@pytest.mark.parametrize(
    ("place", "seed", "camera"),
    [("street", 7, "static"), ("yard", 3, "pan"), ("office", 5, "shake"), ("street", 2, "pan")],
)
def test_true_flow_takes_each_frame_from_the_one_before(place: str, seed: int, camera: str) -> None:
    scene = Scene(place, seed, camera=camera, light="day", weather="clear", noise=0)
    rows, columns = np.mgrid[0:360, 0:640].astype(np.float32)
    still_error, mover_error, mover_change = [], [], []
    for index in (40, 75, 120):
        flow, labels, labels_before = scene.flow(index), scene.labels(index), scene.labels(index - 1)
        x, y = columns + flow[..., 0], rows + flow[..., 1]
        before, now = scene.render(index - 1), scene.render(index)
        came = cv2.remap(before, x, y, cv2.INTER_LINEAR)
        same = cv2.remap(labels_before, x, y, cv2.INTER_NEAREST) == labels  # not hidden before, by anything
        same &= (x >= 0) & (x <= 639) & (y >= 0) & (y <= 359)
        still, mover = same & (labels < 0), same & (labels >= 0)
        still_error.append(_difference(came, now)[still])
        mover_error.append(_difference(came, now)[mover])
        mover_change.append(_difference(before, now)[mover])
    assert (np.concatenate(still_error) < 16).mean() > 0.98
    assert (np.concatenate(mover_error) < 16).mean() > 0.88
    assert np.concatenate(mover_error).mean() < 0.25 * np.concatenate(mover_change).mean()


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Largest channel difference, grey levels, after a blur that forgives interpolation."""
    return np.asarray(cv2.absdiff(cv2.GaussianBlur(a, (3, 3), 0), cv2.GaussianBlur(b, (3, 3), 0)).max(axis=2))


def test_flow_of_the_still_part_is_the_camera() -> None:
    scene = small("yard", 3, camera="pan")
    for index in range(30, 60, 6):
        (dx, dy), flow = scene.truth(index).camera_px, scene.flow(index)
        still = scene.labels(index) < 0
        np.testing.assert_allclose(np.median(flow[still], axis=0), (-dx, -dy), atol=1e-4)
    assert np.isnan(scene.flow(0)).all()


def test_colours_by_day_are_those_of_the_truth() -> None:
    names = [*NOMINAL]
    table = np.array([NOMINAL[n] for n in names], dtype=np.float64)
    seen: Counter[str] = Counter()
    for seed in range(110):
        image, truth, labels = random_still(np.random.default_rng([6, seed]))
        if truth.light != "day" or truth.weather != "clear":
            continue
        for o in truth.objects:
            pixels = image[labels == o.id].astype(np.float64)
            if o.visible < 0.9:
                continue
            shares = np.bincount(_nearest(pixels, table), minlength=len(names)) / len(pixels)
            own = names.index(o.colour)
            others = [shares[names.index(n)] for n in names if n not in (o.colour, "white", "black")]
            told = f"still {seed}: {o}: {dict(zip(names, shares.round(2), strict=True))}"
            assert shares[own] > 0.2, told  # the rest: windows, tyres, trousers, skin, hair
            assert shares[own] > 1.5 * max(others), told
            seen[o.colour] += 1
    assert set(seen) == set(COLOURS) and min(seen.values()) >= 3


def _nearest(pixels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Index of the nearest colour of the table, by direction from grey first and brightness last."""
    away = (pixels[:, None] - table[None]) @ np.array([[1, -1, 0, 0.35], [-1, 0, 1, 0.35], [0, 1, -1, 0.35]])
    return np.asarray((away**2).sum(axis=2).argmin(axis=1))


def test_stills_are_balanced() -> None:
    kinds: Counter[str] = Counter()
    actions: Counter[str] = Counter()
    most: Counter[int] = Counter()
    for seed in range(300):
        _, truth, _ = random_still(np.random.default_rng([7, seed]), 160, 90)
        kinds.update(o.kind for o in truth.objects)
        actions.update(o.action for o in truth.objects)
        most[max(Counter(o.kind for o in truth.objects).values(), default=0)] += 1
        assert all(o.box[1] >= 0 for o in truth.objects if o.action == "flying")
    assert set(kinds) == set(KINDS) and set(actions) == set(ACTIONS)
    assert max(kinds.values()) < 8 * min(kinds.values())
    assert max(actions.values()) < 16 * min(actions.values())  # many kinds are left or parked, one waves
    assert set(most) == set(range(6)) and min(most.values()) > 0.04 * 300  # none is there, or up to five to count


def test_a_person_has_the_same_parts_whatever_it_does() -> None:
    """The flow takes a part's points from one frame to the next."""
    rng = np.random.default_rng(8)
    look = new_look("person", "red", rng)
    poses = [new_figure(1, "person", "yard", rng, 640, 360, action).pose for action in DOINGS]
    assert len({tuple(len(s.points) for s in shapes(look, pose)) for pose in poses}) == 1


def test_whatever_people_do_looks_its_own() -> None:
    """Silhouettes on one spot, squeezed as a square model sees them: no other doing looks like this one."""
    masks = {(a, n): _silhouette(a, n) for a in DOINGS for n in range(4)}
    for a, n in masks:
        alike = {m: _likeness(masks[a, n], masks[m]) for m in masks if m != (a, n)}
        others = max(v for (b, _), v in alike.items() if b != a)
        assert others < 0.8, (a, alike)


def _silhouette(action: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng([9, seed])
    look = new_look("person", "red", np.random.default_rng(1))
    pose = new_figure(1, "person", "street", rng, 640, 360, action).pose
    shift = 40 * np.sin(pose.tilt)  # the middle of the body on one spot
    pose = replace(pose, x=80 - shift, y=100, size=80, facing=1)
    return measure([figure(1, look, pose, action)], 160, 140)[1][:, ::2] >= 0


def _likeness(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.count_nonzero(a & b) / np.count_nonzero(a | b))


def test_videos_show_every_kind_and_doing() -> None:
    seen: set[tuple[str, str]] = set()
    for place, seed in (("street", 2), ("street", 10), ("yard", 4), ("office", 3)):
        scene = small(place, seed)
        for index in range(0, 240 * FPS, FPS):
            seen |= {(o.kind, o.action) for o in scene.truth(index).objects}
    assert {kind for kind, _ in seen} == set(KINDS) and {action for _, action in seen} == set(ACTIONS)


def test_events_are_seen_in_the_pictures() -> None:
    told: Counter[str] = Counter()
    for place, seed in (("street", 2), ("yard", 4), ("office", 9), ("street", 21)):
        scene = small(place, seed, noise=0)
        for e in scene.events(75.0):
            told[e.kind] += 1
            assert 0 <= e.start_s <= e.end_s <= 75
            before, after = _frame(scene, e.start_s - 0.3), _frame(scene, e.end_s + 0.3)
            if e.kind == "light":
                levels = [scene.render(i).mean() for i in (before, after)]
                assert abs(levels[0] - levels[1]) > 0.05 * max(levels)
                continue
            assert e.object_id is not None
            was, middle = (
                _seen(scene, before, e.object_id),
                _seen(scene, _frame(scene, (e.start_s + e.end_s) / 2), e.object_id),
            )
            now = _seen(scene, after, e.object_id)
            if e.kind in ("enter", "leave_object"):
                assert was is None and (now is not None)
            elif e.kind == "leave":
                assert was is not None and now is None
            else:
                assert (was, middle, now) == ("standing", "falling", "lying")
    assert set(told) == {"enter", "leave", "leave_object", "fall", "light"}


def _frame(scene: Scene, t: float) -> int:
    return max(0, round(t * scene.fps))


def _seen(scene: Scene, index: int, id: int) -> str | None:
    """Action of an object as the truth of a frame has it; None when it isn't in the picture."""
    return next((o.action for o in scene.truth(index).objects if o.id == id), None)


def test_the_past_does_not_change() -> None:
    for camera in CAMERAS:
        scene = small("yard", 6, camera=camera)
        assert set(scene.events(25.0)) <= set(scene.events(60.0))


def test_something_happens_soon_and_at_times_nothing_does() -> None:
    for seed in range(5):
        for place in PLACES:
            soon = [e for e in small(place, seed).events(15.0) if e.kind in ("enter", "fall", "leave_object")]
            assert soon, (place, seed)
    scene = small("street", 3, max_objects=2)
    at_rest = ("standing", "lying", "parked", "left")
    assert any(all(o.action in at_rest for o in scene.truth(i).objects) for i in range(0, 120 * FPS, FPS))


def test_cuts_are_where_the_events_say() -> None:
    scene = small(camera="cut", seed=2)
    cuts = [i for i in range(26 * FPS) if scene.truth(i).cut]
    told = [e.start_s for e in scene.events(26.0 - 1 / FPS) if e.kind == "cut"]
    assert cuts == [int(np.ceil(t * FPS)) for t in told] and len(cuts) == 3
    for index in cuts:
        change = cv2.absdiff(scene.render(index), scene.render(index - 1)).mean()
        assert change > 4 * cv2.absdiff(scene.render(index + 1), scene.render(index)).mean()
        assert np.isnan(scene.flow(index)).all()


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("scene:streat", ("streat", "street")),
        ("scene:", ("street, yard, office",)),
        ("scene:yard?sed=1", ("sed", "seed")),
        ("scene:yard?light=nigth", ("nigth", "night")),
        ("scene:yard?camera=panning", ("panning", "pan")),
        ("scene:yard?seed=seven", ("seven", "a whole number")),
        ("scene:yard?fps=0", ("fps is 0", "240")),
        ("scene:yard?noise=nan", ("noise is nan",)),
        ("scene:yard?seconds=-3", ("seconds", "more than 0")),
        ("scene:office?weather=rain", ("office", "clear")),
    ],
)
def test_a_wrong_uri_is_told_what_would_be_right(uri: str, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        SceneSource(uri, source_id="cam", paced=False)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_source_delivers_the_frames_of_its_scene_and_ends() -> None:
    uri = "scene:street?seed=4&width=160&height=90&fps=10&seconds=0.5&light=dusk&objects=2"
    with SceneSource(uri, source_id="cam", paced=False, clock=FakeClock()) as source:
        assert source.info.frames == 5 and source.info.fps == 10 and not source.info.live
        frames = [source.read() for _ in range(5)]
        with pytest.raises(EndOfStream):
            source.read()
    scene = Scene("street", 4, width=160, height=90, fps=10, light="dusk", max_objects=2)
    for i, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.image, scene.render(i))
        assert source.truth(i) == scene.truth(i)
        assert (frame.index, frame.source, frame.discontinuity) == (i, "cam", i == 0)
        assert frame.monotonic_ns - frames[0].monotonic_ns == i * 10**8
        assert (frame.utc - frames[0].utc).total_seconds() == pytest.approx(i / 10)
    with pytest.raises(SourceError):
        source.read()


def test_paced_frames_come_in_their_own_time() -> None:
    clock = FakeClock()
    source = SceneSource("scene:yard?width=160&height=90&fps=10", source_id="cam", paced=True, fps=5, clock=clock)
    start = clock.now_s
    frames = [source.read() for _ in range(4)]
    assert [f.index for f in frames] == [0, 2, 4, 6]
    assert clock.now_s - start == pytest.approx(0.6)
    assert source.info.live and source.info.frames is None
