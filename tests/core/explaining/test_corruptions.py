"""Noise and corruption: what each does to inputs, the same each time."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.core.explaining.corruptions import corrupt, corrupt_signals

IMAGES = np.random.default_rng(1).uniform(-1, 1, (6, 3, 32, 32)).astype(np.float32)
SIGNALS = np.random.default_rng(2).normal(0, [[1.0], [10.0]], (20, 2, 400)).astype(np.float32)


def by_name(inputs: np.ndarray) -> dict[tuple[str, int], np.ndarray]:
    return {(name, severity): spoilt for name, severity, spoilt in corrupt(inputs, inputs)}


@pytest.mark.parametrize("inputs", [IMAGES, SIGNALS, SIGNALS[..., 0]], ids=["images", "signals", "features"])
def test_corruptions_keep_shape_and_type_and_grow_with_severity(inputs: np.ndarray) -> None:
    spoilt, again = by_name(inputs), by_name(inputs)
    assert len(spoilt) == (12 if inputs.ndim == 4 else 6)
    for key, own in spoilt.items():
        assert (own.shape, own.dtype) == (inputs.shape, inputs.dtype)
        np.testing.assert_array_equal(own, again[key])
    for name in {name for name, _ in spoilt}:
        apart = [float(np.abs(spoilt[name, severity] - inputs).mean()) for severity in (1, 3, 5)]
        assert 0 < apart[0] < apart[1] < apart[2], name


def test_images_keep_their_range() -> None:
    for own in by_name(IMAGES).values():
        assert own.min() >= IMAGES.min()
        assert own.max() <= IMAGES.max()


def test_the_strength_is_a_share_of_the_range() -> None:
    image = np.zeros((1, 1, 64, 64), np.float32)
    everything = np.array([-4.0, 4.0], np.float32)
    spoilt = {(name, severity): own for name, severity, own in corrupt(image, everything)}
    assert spoilt["brightness", 3] == pytest.approx(0.15 * 8)
    assert spoilt["noise", 1].std() == pytest.approx(0.04 * 8, rel=0.05)
    assert np.abs(spoilt["contrast", 5]).max() == 0  # nothing stands out of its mean


def test_blur_mixes_places_and_no_channels_or_images() -> None:
    image = np.zeros((2, 2, 32, 32), np.float32)
    image[0, 0, 16, 16] = 1
    blurred = {(name, severity): own for name, severity, own in corrupt(image, image)}["blur", 5]
    assert 0 < blurred[0, 0, 16, 17] < blurred[0, 0, 16, 16] < 1
    assert blurred[0, 1].max() == blurred[1].max() == 0


def test_noise_of_signals_follows_each_channel() -> None:
    noise = by_name(SIGNALS)["noise", 3] - SIGNALS
    assert noise.std(axis=(0, 2)) == pytest.approx([0.3, 3.0], rel=0.1)


def test_a_lost_sample_reads_as_the_one_before_it() -> None:
    ramp = np.broadcast_to(np.arange(400.0), (20, 2, 400)).copy()
    spoilt = {severity: own for name, severity, own in corrupt_signals(ramp, np.ones(2)) if name == "lost samples"}[5]
    lost = spoilt != ramp
    assert lost.mean() == pytest.approx(0.2, abs=0.02)
    np.testing.assert_array_equal(lost[:, 0], lost[:, 1])  # a bus loses all channels at once
    np.testing.assert_array_equal(spoilt[:, :, 1:][lost[:, :, 1:]], spoilt[:, :, :-1][lost[:, :, 1:]])


def test_integers_and_single_numbers_have_none() -> None:
    assert list(corrupt(np.zeros((2, 5), np.int64), np.zeros((2, 5), np.int64))) == []
    assert list(corrupt(np.zeros(3), np.zeros(3))) == []
