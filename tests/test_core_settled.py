"""Medians on a machine that others use too."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.core.statistics import settle_medians


def samples(median: float, disturbed: float, seed: int) -> list[float]:
    """Samples with a few per cent of spread; of a share of them a neighbour takes a quarter more."""
    random = np.random.default_rng(seed)
    found = median * random.gamma(900, 1 / 900, 1000)
    found[: int(1000 * disturbed)] *= 1.25
    return [float(one) for one in found]


def test_a_neighbour_that_disturbs_one_net_does_not_move_its_median() -> None:
    nets = {"calm": (1.0, 0.0), "other": (2.0, 0.0), "third": (3.0, 0.05), "disturbed": (4.0, 0.6)}
    taken = {name: samples(*one, seed) for seed, (name, one) in enumerate(nets.items())}
    assert np.median(taken["disturbed"]) > 4.6
    settled, ratio = settle_medians(taken)
    for name, (median, _) in nets.items():
        assert settled[name] == pytest.approx(median, rel=0.03)
    assert 1.01 < ratio < 1.1


def test_a_ratio_of_calmer_times_is_kept() -> None:
    _, usual = settle_medians({"calm": samples(1.0, 0.0, 1)})
    settled, ratio = settle_medians({"calm": samples(1.0, 0.6, 2), "other": samples(2.0, 0.7, 3)}, usual)
    assert ratio == usual
    assert settled["other"] == pytest.approx(2.0, rel=0.03)
