import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.core.calibrate import Measured, calibrate, fit_profile, score, widen
from edgeprune.core.correction import Correction
from edgeprune.core.estimate import EstimatedProfile, Parameter, find_kernel
from edgeprune.core.latency import parse_table, render_table
from edgeprune.core.layers import Extent, Layer, LayerShape
from edgeprune.core.planner import Problem, choose_widths
from edgeprune.core.profiles import FACTS, parse_profiles, render_profiles
from edgeprune.errors import InfeasibleBudget, ProfileError

FOLDER = Path(__file__).parent.parent / "hardware_profiles"
FILES = sorted(FOLDER.glob("*.json"))
DOT_PRODUCT = ("rpi5", "jetson-orin-nano", "snapdragon-855", "snapdragon-865")


def load(name: str, runtime: str = "litert", precision: str = "fp32", threads: int = 1) -> EstimatedProfile:
    path = FOLDER / f"{name}.json"
    return parse_profiles(path.read_text(), path.name).choose(runtime, precision, threads)


def conv(cin: int, cout: int, size: int = 28, kernel: int = 3, stride: int = 1, groups: int = 1) -> LayerShape:
    pad = kernel // 2
    return LayerShape("conv", cin, cout, (kernel,) * 2, (stride,) * 2, groups, (size,) * 2, (pad,) * 2)


def plain_net(width: int, size: int, depth: int = 6) -> tuple[LayerShape, ...]:
    return (conv(3, width, size, 3, 2), *[conv(width, width, size // 2)] * depth, LayerShape("linear", width, 10))


def separable_net(width: int, size: int, depth: int = 6) -> tuple[LayerShape, ...]:
    block = (conv(width, width, size, groups=width), conv(width, width, size, kernel=1))
    return (conv(3, width, size), *block * depth, LayerShape("linear", width, 100))


NETS = [
    make(width, size) for make in (plain_net, separable_net) for width in (16, 40, 96, 200) for size in (14, 28, 56)
]


def distort(profile: EstimatedProfile, factors: dict[str, float]) -> EstimatedProfile:
    moved = {name: Parameter(one.value * factors.get(name, 1), one.spread) for name, one in profile.parameters.items()}
    return replace(profile, parameters=moved)


def measure(profile: EstimatedProfile, nets: Sequence[tuple[LayerShape, ...]], noise: float = 0.0) -> list[Measured]:
    factors = np.exp(noise * np.random.default_rng(1).standard_normal(len(nets)))
    return [
        Measured(net, profile.predict_net(net).latency_ms * float(factor))
        for net, factor in zip(nets, factors, strict=True)
    ]


def test_every_promised_board_ships() -> None:
    names = {path.stem for path in FILES}
    assert names >= {"rpi4", "rpi3", "rpi5", "rpi-zero-2w", "jetson-nano", "jetson-orin-nano"}
    assert len([name for name in names if name.startswith("snapdragon")]) >= 2


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_file(path: Path) -> None:
    board = parse_profiles(path.read_text(), path.name)
    assert board.board == path.stem
    assert board.sources
    assert set(board.facts) == set(FACTS)
    assert {(one.runtime, one.precision) for one in board.profiles} == {
        (runtime, precision) for runtime in ("litert", "onnxruntime") for precision in ("fp32", "int8")
    }
    for profile in board.profiles:
        assert profile.origin == "estimated"
        assert profile.conditions["left_out"], "every profile says how far it missed what it had not seen"
        assert all(0 <= errors["mean"] < 2 for errors in profile.conditions["left_out"].values())
        found = profile.predict_net(NETS[0])
        assert found.kind == "estimated"
        assert 0 < found.low_ms < found.latency_ms < found.high_ms


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_runtime_without_published_rows_is_less_certain_and_says_so(path: Path) -> None:
    board = parse_profiles(path.read_text(), path.name)
    for precision in ("fp32", "int8"):
        known, unseen = (board.choose(runtime, precision, 1) for runtime in ("litert", "onnxruntime"))
        assert "ONNX Runtime" in unseen.conditions["derived"]
        for net in NETS:
            one, other = known.predict_net(net), unseen.predict_net(net)
            assert other.high_ms / other.low_ms > one.high_ms / one.low_ms


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_round_trip(path: Path) -> None:
    board = parse_profiles(path.read_text(), path.name)
    assert render_profiles(board) == path.read_text()
    assert parse_profiles(render_profiles(board), "again") == board


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_more_work_takes_longer(path: Path, precision: str) -> None:
    profile = parse_profiles(path.read_text(), path.name).choose("litert", precision, 1)
    for kernel, groups in ((1, False), (3, False), (3, True)):
        shapes = [conv(width, width, 28, kernel, groups=width if groups else 1) for width in range(8, 257, 8)]
        times = [profile.predict(shape).latency_ms for shape in shapes]
        assert times == sorted(times)
        assert times[-1] > 4 * times[0]


def test_channels_within_one_vector_tile_compute_no_quicker() -> None:
    profile = load("rpi4")
    compute_bound = replace(
        profile, parameters={**profile.parameters, "cache": Parameter(1e9, 0), "memory": Parameter(1, 0)}
    )
    narrow, full, wider = (compute_bound.predict(conv(512, cout, 56)).latency_ms for cout in (57, 64, 65))
    assert narrow == pytest.approx(full, rel=0.02)
    assert wider > 1.08 * full


@pytest.mark.parametrize("name", DOT_PRODUCT)
def test_int8_is_faster_where_cores_have_dot_products(name: str) -> None:
    for net in NETS:
        fp32, int8 = (load(name, precision=precision).predict_net(net).latency_ms for precision in ("fp32", "int8"))
        arithmetic = sum(shape.macs for shape in net) > 20e6
        assert int8 < (0.75 if arithmetic else 1.15) * fp32, "calls are all that the smallest nets cost"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_depthwise_depends_more_on_memory_and_less_on_arithmetic(path: Path) -> None:
    profile = parse_profiles(path.read_text(), path.name).choose("litert", "fp32", 1)
    faster = replace(profile, core=replace(profile.core, macs_per_cycle=2 * profile.core.macs_per_cycle))
    starved = distort(profile, {"cache": 0.5, "memory": 0.5})

    def sensitivity(shape: LayerShape, changed: EstimatedProfile) -> float:
        return abs(changed.predict(shape).latency_ms / profile.predict(shape).latency_ms - 1)

    dense, depthwise = conv(256, 256, 56), conv(256, 256, 56, groups=256)
    assert sensitivity(depthwise, starved) > 3 * sensitivity(dense, starved)
    assert sensitivity(depthwise, faster) < sensitivity(dense, faster)
    assert 0.4 < sensitivity(dense, faster) <= 0.5


def test_a_large_linear_layer_costs_what_its_weights_take_from_memory() -> None:
    profile = load("rpi4", threads=4)
    layer = LayerShape("linear", 4096, 4096)
    bound_ms = 4 * 4096**2 / (profile.core.memory_gb_s * 1e6)
    assert profile.predict(layer).latency_ms > bound_ms


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_threads_help_and_never_more_than_their_number(path: Path) -> None:
    board = parse_profiles(path.read_text(), path.name)
    cores = board.profiles[0].core.cores
    net = plain_net(96, 56)
    one, all_of_them = (board.choose("litert", "fp32", n).predict_net(net).latency_ms for n in (1, cores))
    assert one / cores <= all_of_them <= one
    with pytest.raises(ProfileError, match="such cores"):
        board.choose("litert", "fp32", cores + 1)


def test_slower_clock_of_the_same_core_is_slower() -> None:
    for net in NETS:
        zero, three = (load(name).predict_net(net).latency_ms for name in ("rpi-zero-2w", "rpi3"))
        assert three < zero < 1.5 * three


@given(st.sampled_from(["softmax", "lstm", "attention", ""]))
def test_unknown_operator_is_refused_by_name(op: str) -> None:
    shape = LayerShape(op, 8, 8, (1,), (1,), 1, (4,), (0,))
    with pytest.raises(ProfileError, match=f"operator '{op}'.*rpi4|rpi4.*operator '{op}'"):
        load("rpi4").predict(shape)
    with pytest.raises(ProfileError, match="operator"):
        load("rpi4").predict_net([conv(8, 8), shape])


def test_pools_and_adds_are_known() -> None:
    profile = load("rpi4")
    pool = LayerShape("pool", 64, 64, (2, 2), (2, 2), 1, (56, 56), (0, 0))
    add = LayerShape("add", 64, 64, size=(56, 56))
    for shape in (pool, add):
        assert 0 < profile.predict(shape).latency_ms < profile.predict(conv(64, 64, 56)).latency_ms


def test_kernels_are_told_apart() -> None:
    kinds = {
        "conv3x3": conv(8, 16),
        "conv": conv(8, 16, stride=2),
        "pointwise": conv(8, 16, kernel=1),
        "depthwise": conv(8, 8, groups=8),
        "linear": LayerShape("linear", 8, 8),
    }
    assert {find_kernel(shape, "here") for shape in kinds.values()} == set(kinds)
    assert all(find_kernel(shape, "here") == kind for kind, shape in kinds.items())
    tokens = LayerShape("linear", 8, 8, (1,), (1,), 1, (197,), (0,))
    assert find_kernel(tokens, "here") == "pointwise"


def test_a_table_of_estimates_is_marked_and_survives_its_file() -> None:
    profile = load("rpi4", precision="int8", threads=4)
    shapes = [conv(cin, cout) for cin in (8, 32) for cout in (16, 64)]
    table = profile.tabulate(shapes)
    read = parse_table(render_table(table), "table")
    assert read.origin == "estimated"
    assert "estimated" in read.key.device
    for shape in shapes:
        assert read.predict(shape).kind == "estimated"
        assert read.predict(shape).latency_ms == profile.predict(shape).latency_ms


def test_the_planner_plans_on_an_estimate() -> None:
    profile = load("rpi4", threads=4)
    first = Layer("first", conv(3, 64, 32), Extent(3), Extent(0, ((1, ("a",)),)))
    second = Layer("second", conv(64, 64, 32), Extent(0, ((1, ("a",)),)), Extent(0, ((1, ("b",)),)))
    widths = range(8, 65, 8)
    loss = {name: {width: (64 - width) * rise for width in widths} for name, rise in (("a", 1.0), ("b", 3.0))}
    layers = (first, second)
    table = profile.tabulate(layer.at({"a": a, "b": b}) for layer in layers for a in widths for b in widths)
    problem = Problem(layers, loss, table, Correction())
    full_ms = profile.predict_net([layer.shape for layer in layers]).latency_ms
    chosen = choose_widths(problem, 0.5 * full_ms)
    assert chosen.latency_ms <= 0.5 * full_ms
    assert chosen.widths["b"] >= chosen.widths["a"]
    with pytest.raises(InfeasibleBudget):
        choose_widths(problem, 1e-6)


def test_calibration_recovers_a_known_distortion() -> None:
    profile = load("rpi4")
    truth = distort(profile, {"speed": 0.4, "depthwise": 0.6, "conv3x3": 1.5})
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


def test_five_nets_set_the_speed_and_narrow_the_interval() -> None:
    profile = load("rpi5")
    rows = measure(distort(profile, {"speed": 0.5}), NETS[::5])
    assert len(rows) == 5
    done = calibrate(profile, rows)
    assert done.before.mean == pytest.approx(0.5, abs=0.01)
    assert done.after.mean < 0.2
    before, after = profile.predict_net(NETS[1]), done.profile.predict_net(NETS[1])
    assert after.high_ms / after.low_ms < before.high_ms / before.low_ms


def test_one_wrong_measurement_does_not_decide() -> None:
    profile = load("rpi4")
    rows = measure(distort(profile, {"speed": 0.5}), NETS)
    rows[3] = replace(rows[3], latency_ms=20 * rows[3].latency_ms)
    done = calibrate(profile, rows)
    others = [row for index, row in enumerate(rows) if index != 3]
    assert score([(done.profile, row) for row in others]).mean < 0.1


def test_a_net_with_several_thread_counts_is_left_out_whole() -> None:
    profile = load("rpi4")
    odd = plain_net(200, 112, 12)
    truth = distort(profile, {"conv3x3": 0.25})
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


def test_too_few_nets_are_refused() -> None:
    profile = load("rpi4")
    with pytest.raises(ProfileError, match="4 different nets"):
        calibrate(profile, measure(profile, [*NETS[:4], *NETS[:4]]))


def test_a_difference_of_nets_is_fitted_as_one() -> None:
    profile = widen(load("rpi4"), 0.3)
    truth = distort(profile, {"depthwise": 0.5})
    rows = []
    for width in (16, 64, 128, 256):
        without, block = (conv(width, width, 28, 1),), conv(width, width, 28, groups=width)
        rows.append(Measured((*without, block), truth.predict(block).latency_ms, less=without))
    fitted = fit_profile(profile, rows)
    assert score([(fitted, row) for row in rows]).worst < score([(profile, row) for row in rows]).worst / 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2"),
        ({"origin": "measured"}, "origin 'measured'"),
        ({"profiles": [{}]}, "not a file of estimated profiles"),
        ({"sources": None}, "not a file of estimated profiles"),
        ({"facts": {}}, "no source for clock_ghz, macs_per_cycle"),
        ({"facts": ["a"]}, "not a file of estimated profiles"),
    ],
)
def test_a_wrong_file_is_refused(change: dict[str, object], message: str) -> None:
    document = json.loads((FOLDER / "rpi4.json").read_text()) | change
    with pytest.raises(ProfileError, match=message):
        parse_profiles(json.dumps(document), "board.json")


@pytest.mark.parametrize("figure", [0, -1, float("nan"), float("inf")])
def test_a_wrong_figure_is_refused(figure: float) -> None:
    document = json.loads((FOLDER / "rpi4.json").read_text())
    document["profiles"][0]["parameters"]["conv"] = figure
    with pytest.raises(ProfileError, match=r"board\.json"):
        parse_profiles(json.dumps(document), "board.json")


def test_a_missing_parameter_is_named() -> None:
    document = json.loads((FOLDER / "rpi4.json").read_text())
    del document["profiles"][0]["parameters"]["depthwise"]
    with pytest.raises(ProfileError, match="depthwise"):
        parse_profiles(json.dumps(document), "board.json")


@given(st.text(max_size=50))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(ProfileError, match=r"board\.json"):
        parse_profiles(text, "board.json")


def test_an_unknown_runtime_lists_what_there_is() -> None:
    with pytest.raises(ProfileError, match="none for tvm fp32; there are litert fp32"):
        load("rpi4", runtime="tvm")
