"""Starting values by content: those that the method was published with, where it has them."""

from __future__ import annotations

from dataclasses import fields

import pytest

from agent.coherence.settings import PROFILES, CoherenceSettings

PUBLISHED = {
    "webcam": {"ema_static": 0.98, "motion_low": 0.1},
    "conversation": {"ema_static": 0.9, "motion_low": 0.15},
    "sports": {"ema_static": 0.7, "ema_fast": 0.2, "motion_low": 0.3},
    "movie": {"ema_static": 0.85},
    "security": {"ema_static": 0.98, "motion_low": 0.1, "fidelity_floor": 0.99},
    "general": {"ema_static": 0.9, "ema_fast": 0.3, "motion_low": 0.2, "flow_error_px": 1.0, "cut_features": 0.7},
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_profile_has_the_published_values_and_differs_in_nothing_else(name: str) -> None:
    profile, general = PROFILES[name], CoherenceSettings()
    for key, value in PUBLISHED[name].items():
        assert getattr(profile, key) == value
    other = {each.name for each in fields(profile) if getattr(profile, each.name) != getattr(general, each.name)}
    assert other <= PUBLISHED[name].keys() | {"cut_reset"}
    assert profile.fidelity_floor == (0.99 if name == "security" else 0.985)


def test_edited_film_is_asked_sooner_whether_it_was_cut() -> None:
    assert {name for name, each in PROFILES.items() if each.cut_reset < CoherenceSettings().cut_reset} == {"movie"}
