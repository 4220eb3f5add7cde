"""Scene cuts: what counts as one, and what finding out costs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.coherence.cuts import CombinedCut, FeatureCut, HistogramCut, token_cosines
from vpi_ops.host import HostOps

DISTANCE = HostOps().histogram_distance
RNG = np.random.default_rng(0)


def one_colour(index: int) -> NDArray[np.float32]:
    histogram = np.zeros((8, 8, 8), np.float32)
    histogram[index, 4, 4] = 1
    return histogram


def test_the_first_frame_and_the_same_colours_are_no_cut() -> None:
    detector = HistogramCut(DISTANCE)
    assert not detector.process(one_colour(0)).cut
    assert not detector.process(one_colour(0)).cut
    score = detector.process(one_colour(3))
    assert score.cut
    assert score.histogram == 1
    detector.reset()
    assert not detector.process(one_colour(5)).cut


def test_features_that_turn_away_are_a_cut_and_noise_is_none() -> None:
    detector = FeatureCut(threshold=0.7)
    features = RNG.normal(size=(64, 16)).astype(np.float32)
    assert not detector.process(features).cut
    noisy = features + 0.1 * RNG.normal(size=features.shape).astype(np.float32)
    assert not detector.process(noisy).cut
    assert detector.process(RNG.normal(size=(64, 16)).astype(np.float32)).cut


def test_features_are_encoded_on_suspicion_only_and_decide() -> None:
    detector = CombinedCut(DISTANCE)
    old, other = (RNG.normal(size=(64, 16)).astype(np.float32) for _ in range(2))
    encoded: list[NDArray[np.float32]] = []

    def encode(features: NDArray[np.float32]) -> NDArray[np.float32]:
        encoded.append(features)
        return features

    assert not detector.process(one_colour(0), None, lambda: encode(old)).cut
    assert not detector.process(one_colour(0), old, lambda: encode(old)).cut
    assert not encoded
    flash = detector.process(one_colour(4), old, lambda: encode(old))
    assert not flash.cut
    assert flash.features is not None
    assert flash.features > 0.99
    cut = detector.process(one_colour(7), old, lambda: encode(other))
    assert cut.cut
    assert len(encoded) == 2


def test_cosines_of_empty_tokens_are_zero() -> None:
    a = np.array([[1, 0], [0, 0], [3, 4]], np.float32)
    b = np.array([[2, 0], [1, 1], [-3, -4]], np.float32)
    np.testing.assert_allclose(token_cosines(a, b), (1, 0, -1), rtol=1e-6)
