from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from estimated import (
    NETS,
    Net,
    add,
    conv,
    distort,
    load,
    measure,
    mobilenet_v1,
    plain_net,
    pool,
    resnet18,
    separable_net,
)
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.core.estimating.calibrate import (
    Measured,
    calibrate,
    find_stretch,
    fit_profile,
    loosen,
    score,
    soften,
    widen,
)
from edgeprune.core.latency.layers import LayerShape
from edgeprune.errors import ProfileError


def pooled_net(width: int, size: int, kernel: int) -> Net:
    """A net that is mostly pools, and sums of them."""
    body = (conv(width, width, size, 1), *[pool(width, size, kernel)] * 4, *[add(width, size)] * 4)
    return (conv(3, width, size), *body, pool(width, size, size, size), LayerShape("linear", width, 10))


def test_it_recovers_a_known_distortion() -> None:
    profile = load("rpi4")
    truth = distort(profile, {"speed": 0.4, "depthwise": 0.6, "pointwise": 1.3})
    done = calibrate(profile, measure(truth, NETS, noise=0.02))
    assert done.before.mean > 0.5
    assert done.after.mean < 0.06
    unseen = [plain_net(64, 112), separable_net(64, 112), separable_net(320, 14), plain_net(24, 28, 12)]
    assert score([(done.profile, row) for row in measure(truth, unseen)]).worst < 0.1


def test_a_board_as_estimated_is_left_as_it_is() -> None:
    profile = load("rpi4")
    done = calibrate(profile, measure(profile, NETS))
    assert done.before.worst < 1e-9
    assert done.after.worst < 0.02


@pytest.mark.parametrize(
    ("name", "layer", "other"),
    [("pool", pool(64, 28, 3), add(64, 28)), ("add", add(64, 28), pool(64, 28, 3))],
)
def test_pools_and_additions_move_apart(name: str, layer: LayerShape, other: LayerShape) -> None:
    """Nets that say what pools cost change neither additions nor convolutions, and the other way round."""
    profile = load("rpi4")
    truth = distort(profile, {name: 0.4})
    nets = [pooled_net(width, size, kernel) for width in (16, 64) for size in (14, 28) for kernel in (2, 3, 5)]
    fitted = calibrate(profile, measure(truth, [*nets, *NETS])).profile
    assert fitted.predict(layer).latency_ms == pytest.approx(truth.predict(layer).latency_ms, rel=0.25)
    for same in (other, conv(64, 64), conv(64, 64, groups=64)):
        assert fitted.predict(same).latency_ms == pytest.approx(profile.predict(same).latency_ms, rel=0.15)


@pytest.mark.parametrize("measured", ["fp32", "int8"])
@pytest.mark.parametrize("threads", [1, 4])
def test_rows_of_one_precision_correct_the_board_in_the_other(measured: str, threads: int) -> None:
    """Seven rows of int8 once moved the ratio of int8 to fp32 from 0.38 to 0.61: the fp32 baseline stayed behind."""
    profile = load("rpi4", precision=measured, threads=threads)
    rows = measure(distort(profile, {"speed": 0.5}), NETS[:7], noise=0.02)
    fitted = calibrate(profile, rows).profile
    other = "int8" if measured == "fp32" else "fp32"
    for net in (mobilenet_v1(), resnet18()):
        before = [replace(profile, precision=one).predict_net(net).latency_ms for one in (measured, other)]
        after = [replace(fitted, precision=one).predict_net(net).latency_ms for one in (measured, other)]
        assert after[0] / before[0] == pytest.approx(2, rel=0.15)
        assert after[1] / before[1] == pytest.approx(2, rel=0.25)
        assert after[1] / after[0] == pytest.approx(before[1] / before[0], rel=0.2)


def test_rows_of_several_precisions_and_threads_are_fitted_as_one() -> None:
    profile = load("rpi4")
    truth = distort(profile, {"int8": 0.6, "parallel": 0.6})
    ways = [("fp32", 1), ("fp32", 4), ("int8", 1), ("int8", 4)]
    rows = [
        Measured(net, replace(truth, precision=precision, threads=threads).predict_net(net).latency_ms, threads)
        for net in NETS
        for precision, threads in ways
    ]
    rows = [replace(row, precision=ways[index % 4][0]) for index, row in enumerate(rows)]
    done = calibrate(profile, rows)
    assert done.after.mean < 0.05
    for precision, threads in ways:
        asked, true = (replace(one, precision=precision, threads=threads) for one in (done.profile, truth))
        assert asked.predict_net(resnet18()).latency_ms == pytest.approx(
            true.predict_net(resnet18()).latency_ms, rel=0.05
        )


def test_five_nets_set_the_speed_and_narrow_the_interval() -> None:
    profile = load("rpi5")
    rows = measure(distort(profile, {"speed": 0.5}), NETS[::5])
    assert len(rows) == 5
    done = calibrate(profile, rows)
    assert done.before.mean == pytest.approx(0.5, abs=0.02)
    assert done.after.mean < 0.2
    before, after = profile.predict_net(NETS[1]), done.profile.predict_net(NETS[1])
    assert after.high_ms / after.low_ms < before.high_ms / before.low_ms


def test_five_rows_are_enough_where_nets_share_their_layers() -> None:
    """Five rows of three nets, as with several threads; lists that differ in pools and additions alone."""
    profile = load("rpi4")
    trunk = (*[conv(16, 16, 32)] * 3, conv(16, 16, 32, 1))
    nets = [(*trunk, *[pool(16, 32, 3)] * pools, *[add(16, 32)] * sums) for pools, sums in ((0, 1), (1, 0), (1, 1))]
    rows = measure(profile, [*nets, nets[0], nets[1]])
    rows[3:] = [replace(row, threads=4, latency_ms=row.latency_ms / 2) for row in rows[3:]]
    assert calibrate(profile, rows).before.count == 5


def disturb(rows: list[Measured], factor: float) -> list[Measured]:
    return [
        replace(row, latency_ms=(factor if index % 7 == 3 else 1) * row.latency_ms) for index, row in enumerate(rows)
    ]


@pytest.mark.parametrize("factor", [20.0, 1.4, 0.7])
def test_wrong_measurements_do_not_decide(factor: float) -> None:
    profile = load("rpi4")
    rows = disturb(measure(distort(profile, {"speed": 0.5}), NETS, noise=0.01), factor)
    done = calibrate(profile, rows)
    others = [row for index, row in enumerate(rows) if index % 7 != 3]
    assert score([(done.profile, row) for row in others]).mean < 0.06


def test_a_disturbance_that_slows_counts_less() -> None:
    far = np.array([-3.0, 3.0])
    slow, quick = np.abs(soften(far)[0])
    assert slow < quick
    assert soften(np.zeros(1))[0] == 0


@given(st.floats(-50, 50).filter(lambda miss: abs(miss) > 1e-3))
def test_the_loss_has_the_slope_that_it_says(miss: float) -> None:
    step = 1e-6
    around, _ = soften(np.array([miss - step, miss + step]))
    _, slope = soften(np.array([miss]))
    assert (around[1] - around[0]) / (2 * step) == pytest.approx(slope[0], rel=1e-3)


def test_a_net_with_several_thread_counts_is_left_out_whole() -> None:
    profile = load("rpi4")
    odd = plain_net(200, 112, 12)
    truth = distort(profile, {"efficiency": 0.25})
    rows = measure(profile, [net for net in NETS if net[1].groups > 1])
    slow = truth.predict_net(odd).latency_ms
    done = calibrate(profile, [*rows, Measured(odd, slow, 1), Measured(odd, slow / 2, 4)])
    assert done.after.worst > 0.4


@pytest.mark.parametrize("ms", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_latency_is_refused(ms: float) -> None:
    profile = load("rpi4")
    rows = measure(profile, NETS)
    with pytest.raises(ProfileError, match="positive"):
        calibrate(profile, [*rows, Measured(NETS[0], ms)])


@pytest.mark.parametrize(
    ("rows", "message"),
    [(NETS[:4], "4 rows of 4 different nets"), ([NETS[0], NETS[1]] * 4, "8 rows of 2 different nets")],
)
def test_too_few_nets_are_refused(rows: list[Net], message: str) -> None:
    profile = load("rpi4")
    with pytest.raises(ProfileError, match=f"{message}; at least 5 rows of 3 nets"):
        calibrate(profile, measure(profile, rows))


def without_pools(net: Net) -> Net:
    return tuple(shape for shape in net if shape.has_weights)


def test_a_profile_of_lists_of_weights_is_not_asked_with_others() -> None:
    """What pools take is in the cost of the layers, and would be counted twice."""
    profile = load("rpi4")
    fitted = calibrate(profile, measure(profile, [without_pools(net) for net in NETS])).profile
    assert fitted.predict_net(without_pools(NETS[0])).latency_ms > 0
    with pytest.raises(ProfileError, match=r"convolutions and linear layers only.*holds 'add 16->16 @ 7x7'.*complete"):
        fitted.predict_net(NETS[0])
    complete = calibrate(profile, measure(profile, NETS)).profile
    assert complete.predict_net(NETS[0]).latency_ms == pytest.approx(profile.predict_net(NETS[0]).latency_ms, rel=0.01)


def test_a_difference_of_nets_is_fitted_as_one() -> None:
    profile = widen(load("rpi4"), 0.3)
    truth = distort(profile, {"depthwise": 0.5})
    rows = []
    for width in (16, 64, 128, 256):
        without, block = (conv(width, width, 28, 1),), conv(width, width, 28, groups=width)
        rows.append(Measured((*without, block), truth.predict(block).latency_ms, less=without))
    fitted = fit_profile(profile, rows)
    assert score([(fitted, row) for row in rows]).worst < score([(profile, row) for row in rows]).worst / 2


def hold(noise: Callable[[np.random.Generator], float], size: int) -> float:
    """Share of unseen nets within the 90 % intervals of calibrations by so many nets, over several of them."""
    profile, random, held = load("rpi4"), np.random.default_rng(0), []
    for _ in range(12):
        nets = [
            (plain_net if random.random() < 0.5 else separable_net)(
                int(random.integers(8, 200)), int(random.choice([14, 28, 56])), int(random.integers(2, 12))
            )
            for _ in range(size + 40)
        ]
        truth = distort(profile, {"speed": 0.6, "pointwise": 1.4, "cache": 0.5})
        rows = [replace(row, latency_ms=row.latency_ms * noise(random)) for row in measure(truth, nets)]
        fitted = calibrate(profile, rows[:size]).profile
        held.append(score([(fitted, row) for row in rows[size:]]).coverage)
    return float(np.mean(held))


def bell(random: np.random.Generator) -> float:
    return float(np.exp(0.05 * random.standard_normal()))


def two_peaks(random: np.random.Generator) -> float:
    """As on Raspberry Pi 4: one net in five takes a third longer."""
    return float(np.exp(0.02 * random.standard_normal())) * (1.33 if random.random() < 0.2 else 1.0)


@pytest.mark.parametrize("noise", [bell, two_peaks])
def test_intervals_hold_what_they_say_of_nets_that_were_not_seen(noise: Callable[[np.random.Generator], float]) -> None:
    assert 0.85 <= hold(noise, 30) <= 0.95


def test_intervals_of_five_nets_are_careful() -> None:
    assert 0.8 <= hold(bell, 5) <= 0.98


@given(st.lists(st.floats(0.1, 5), min_size=1, max_size=60), st.floats(1.01, 3))
def test_the_stretch_follows_the_misses(misses: list[float], factor: float) -> None:
    stretch = find_stretch(misses)
    assert stretch > 0
    assert find_stretch([factor * miss for miss in misses]) > stretch


def test_the_stretch_is_that_of_the_rows_where_they_are_many() -> None:
    misses = np.linspace(0.001, 0.5, 1000)
    assert find_stretch([float(miss) for miss in misses]) == pytest.approx(0.45, rel=0.01)


def test_a_calibration_starts_from_no_surer_than_boards_differ() -> None:
    sure = replace(load("rpi4"), stretch=0.1)
    loose = loosen(sure)
    assert loose.stretch == 1
    assert all(loose.parameters[name].value == one.value for name, one in sure.parameters.items())
    assert all(loose.parameters[name].spread >= one.spread for name, one in sure.parameters.items())
    assert loose.parameters["speed"].spread >= 0.5
