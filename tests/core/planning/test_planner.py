import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.core.latency.correction import Correction
from edgeprune.core.latency.layers import Extent, Layer, LayerShape
from edgeprune.core.latency.table import LatencyPoint, LatencyTable, TableKey
from edgeprune.core.planning.candidates import WidthRule, candidate_widths, draw_variants, probe_shapes
from edgeprune.core.planning.plan import ChannelGroup
from edgeprune.core.planning.planner import Problem, choose_widths, find_fastest, predict_ms, trace_front
from edgeprune.errors import InfeasibleBudget, PlanError, ProfileError

KEY = TableKey("device", "onnxruntime", "1.0", "fp32", 1)


def extent(*groups: str, constant: int = 0) -> Extent:
    return Extent(constant, tuple((1, (group,)) for group in groups))


def conv(name: str, cin: Extent, cout: Extent) -> Layer:
    return Layer(name, LayerShape("conv", 8, 8, (3, 3), (1, 1), 1, (8, 8), (1, 1)), cin, cout)


def staircase(shape: LayerShape) -> float:
    """Rises only every eight channels, like a vector unit."""
    return 0.01 + 0.001 * -(-shape.cin // 8) * -(-shape.cout // 8)


def table_of(layers: list[Layer], widths: dict[str, tuple[int, ...]]) -> LatencyTable:
    shapes = probe_shapes(layers, widths, 10_000)
    return LatencyTable(KEY, tuple(LatencyPoint(s, staircase(s), staircase(s), staircase(s)) for s in sorted(shapes)))


def chain(losses: dict[str, dict[int, float]]) -> Problem:
    """Input 3 -> a -> b -> c -> 10, with a shortcut that adds a and c's layer inputs nothing."""
    names = list(losses)
    ends = [extent(constant=3), *(extent(name) for name in names), extent(constant=10)]
    layers = [conv(f"layer{i}", cin, cout) for i, (cin, cout) in enumerate(itertools.pairwise(ends))]
    widths = {name: tuple(sorted(costs)) for name, costs in losses.items()}
    return Problem(tuple(layers), losses, table_of(layers, widths))


def brute_force(problem: Problem, budget_ms: float) -> float | None:
    """Least loss over every combination."""
    names = list(problem.loss)
    best = None
    for chosen in itertools.product(*(problem.loss[name] for name in names)):
        widths = dict(zip(names, chosen, strict=True))
        shapes = [layer.at(widths) for layer in problem.layers]
        beyond = max(0.0, sum(shape.megavalues for shape in shapes) - problem.correction.cached_megavalues)
        total = (
            problem.correction.offset_ms + sum(map(staircase, shapes)) + problem.correction.per_megavalue_ms * beyond
        )
        if total <= budget_ms:
            loss = sum(problem.loss[name][width] for name, width in widths.items())
            best = loss if best is None else min(best, loss)
    return best


losses = st.fixed_dictionaries(
    {
        name: st.lists(st.floats(0.001, 10), min_size=3, max_size=3).map(
            lambda rises: {8 * (4 - i): sum(rises[:i]) for i in range(4)}
        )
        for name in "abc"
    }
)


@settings(max_examples=40, deadline=None)
@given(
    losses,
    st.floats(0.2, 1.05),
    st.sampled_from([(0.0, 0.0), (0.5, 0.0), (2.0, 0.01), (5.0, 0.03)]),
    st.sampled_from([0.0, 0.03, -0.03]),
)
def test_plan_is_the_optimum_that_brute_force_finds(
    loss: dict[str, dict[int, float]], share: float, beyond: tuple[float, float], offset_ms: float
) -> None:
    """Also where what is moved beyond the caches costs more, and where a net costs more or less than its layers."""
    per_megavalue_ms, cached = beyond
    correction = Correction(offset_ms=offset_ms, per_megavalue_ms=per_megavalue_ms, cached_megavalues=cached)
    problem = replace(chain(loss), correction=correction)
    full = predict_ms(problem, dict.fromkeys(loss, 32))
    best = brute_force(problem, share * full)
    if best is None:
        with pytest.raises(InfeasibleBudget):
            choose_widths(problem, share * full)
        return
    choice = choose_widths(problem, share * full)
    assert choice.latency_ms <= share * full * (1 + 1e-6)
    assert choice.loss_increase <= best * 1.002 + 1e-5


def test_width_that_saves_nothing_is_never_taken() -> None:
    """12 channels cost what 16 cost on a staircase of eight: 16 is kept even where 12 costs no loss either."""
    loss = {name: {8: 1.0, 12: 0.0, 16: 0.0} for name in "ab"}
    problem = chain(loss)
    assert choose_widths(problem, 1.0).widths == {"a": 16, "b": 16}


LITERT_US = {32: 342, 33: 507, 48: 510, 50: 675, 64: 673, 65: 844, 80: 845}
"""3x3 convolution of 64 channels at 28x28, LiteRT fp32, one thread, by output channels: measured on an AVX2 machine."""


@pytest.mark.parametrize("budget_us", range(340, 860, 10))
def test_filters_are_never_cut_where_the_measured_staircase_is_flat(budget_us: int) -> None:
    layer = Layer(
        "layer", LayerShape("conv", 64, 80, (3, 3), (1, 1), 1, (28, 28), (1, 1)), extent(constant=64), extent("a")
    )
    points = [LatencyPoint(layer.at({"a": width}), us / 1e3, us / 1e3, us / 1e3) for width, us in LITERT_US.items()]
    problem = Problem((layer,), {"a": {width: 80.0 - width for width in LITERT_US}}, LatencyTable(KEY, tuple(points)))
    if budget_us < min(LITERT_US.values()):
        with pytest.raises(InfeasibleBudget):
            choose_widths(problem, budget_us / 1e3)
    else:
        assert choose_widths(problem, budget_us / 1e3).widths["a"] in (32, 48, 64, 80)


def test_infeasible_budget_names_the_best_reachable_figure() -> None:
    problem = chain({name: {8: 1.0, 16: 0.0} for name in "ab"})
    fastest = find_fastest(problem)
    assert fastest.widths == {"a": 8, "b": 8}
    with pytest.raises(InfeasibleBudget, match=f"{fastest.latency_ms:.4g}"):
        choose_widths(problem, fastest.latency_ms * 0.9)


def test_layer_fed_by_many_groups_follows_its_total_input() -> None:
    """Six branches of 16 widths each cannot be enumerated; a linear cost must still be planned exactly."""
    names = [f"branch{i}" for i in range(6)]
    loss = {name: {width: (64 - width) * (1 + i) / 64 for width in range(4, 65, 4)} for i, name in enumerate(names)}
    layer = conv("joined", extent(*names), extent(constant=10))
    widths = {name: tuple(sorted(costs)) for name, costs in loss.items()}
    shapes = probe_shapes([layer], widths, 10_000)
    points = tuple(LatencyPoint(s, s.cin * 1e-3, 0, 1) for s in sorted(shapes))
    choice = choose_widths(Problem((layer,), loss, LatencyTable(KEY, points)), 0.5 * 6 * 64 * 1e-3)
    assert sum(choice.widths.values()) == 192
    assert choice.widths["branch5"] == 64
    assert choice.widths["branch0"] == 4


def test_table_refuses_what_lies_outside_and_names_the_nearest() -> None:
    shape = LayerShape("conv", 8, 16, (3, 3), (1, 1), 1, (8, 8), (1, 1))
    table = LatencyTable(KEY, (LatencyPoint(shape, 0.1, 0.1, 0.1),))
    with pytest.raises(ProfileError, match=r"conv 3x3 8->17.*nearest point is conv 3x3 8->16"):
        table.predict(LayerShape("conv", 8, 17, (3, 3), (1, 1), 1, (8, 8), (1, 1)))


def test_table_interpolates_between_measured_widths() -> None:
    def at(cin: int, cout: int) -> LayerShape:
        return LayerShape("conv", cin, cout, (1, 1), (1, 1), 1, (8, 8), (0, 0))

    corners = [(8, 8, 1.0), (8, 16, 2.0), (16, 8, 3.0), (16, 16, 4.0)]
    table = LatencyTable(KEY, tuple(LatencyPoint(at(i, o), ms, ms, ms) for i, o, ms in corners))
    found = table.predict(at(12, 12))
    assert found.latency_ms == pytest.approx(2.5)
    assert (found.low_ms, found.high_ms, found.kind) == (1.0, 4.0, "interpolated")


def test_a_net_of_one_input_channel_is_interpolated_too() -> None:
    """A convolution of one input channel has as many groups as inputs, but is not depthwise."""
    stem = LayerShape("conv", 1, 8, (3, 3), (1, 1), 1, (8, 8), (1, 1))
    points = tuple(LatencyPoint(replace(stem, cout=cout), cout / 8, 0, 2) for cout in (4, 12))
    assert LatencyTable(KEY, points).predict(stem).latency_ms == pytest.approx(1.0)


def test_depthwise_layers_are_interpolated_over_their_channels() -> None:
    shape = LayerShape("conv", 16, 16, (3, 3), (1, 1), 16, (8, 8), (1, 1))
    points = tuple(LatencyPoint(replace(shape, cin=n, cout=n, groups=n), n / 16, 0, 2) for n in (8, 24))
    assert LatencyTable(KEY, points).predict(shape).latency_ms == pytest.approx(1.0)


def test_planned_latency_is_that_of_the_corrected_net() -> None:
    problem = replace(
        chain({name: {8: 3.0, 16: 1.0, 32: 0.0} for name in "abc"}), correction=Correction(0.9, 1.0, 0.02, -5.0)
    )
    shapes = [layer.at({"a": 16, "b": 32, "c": 8}) for layer in problem.layers]
    expected = 0.02 + sum(max(0.0, 0.9 * staircase(shape) - 5.0 * shape.weights / 1e6) for shape in shapes)
    assert predict_ms(problem, {"a": 16, "b": 32, "c": 8}) == pytest.approx(expected)
    choice = choose_widths(problem, expected)
    assert choice.latency_ms <= expected * (1 + 1e-6)


def test_candidates_are_multiples_and_never_a_sliver() -> None:
    groups = [ChannelGroup("wide", 512, ()), ChannelGroup("odd", 50, ()), ChannelGroup("kept", 10, (), frozen="output")]
    found = candidate_widths(groups, [], 4)
    assert "kept" not in found
    assert found["odd"] == (8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 50)
    assert min(found["wide"]) == 64
    assert len(found["wide"]) <= 16
    assert candidate_widths([ChannelGroup("heads", 4, (), kind="heads")], [], 8) == {"heads": (1, 2, 3, 4)}


def test_widths_follow_the_users_rules() -> None:
    groups = [ChannelGroup(name, 64, ()) for name in ("coarse", "broad", "fixed", "whole", "free")]
    rules = {
        "coarse": WidthRule(step=24),
        "broad": WidthRule(least=50),
        "fixed": WidthRule(fixed=17),
        "whole": WidthRule(fixed=64),
    }
    found = candidate_widths(groups, [], 8, rules)
    assert found["coarse"] == (24, 48, 64)
    assert found["broad"] == (56, 64)
    assert found["fixed"] == (17, 64)
    assert found["whole"] == (64,)
    assert found["free"] == tuple(range(8, 65, 8))
    with pytest.raises(PlanError, match=r"'pairs': cannot have 15 channels; the nearest width is 1[46]"):
        candidate_widths([ChannelGroup("pairs", 32, (), step=2)], [], 8, {"pairs": WidthRule(fixed=15)})


@settings(max_examples=10, deadline=None)
@given(losses)
def test_every_point_of_the_front_is_the_optimum_at_its_latency(loss: dict[str, dict[int, float]]) -> None:
    problem = chain(loss)
    front = trace_front(problem, 6)
    assert front[0].loss_increase == 0
    assert front[-1].latency_ms == pytest.approx(find_fastest(problem).latency_ms, rel=2e-3)
    for dear, cheap in itertools.pairwise(front):
        assert dear.latency_ms > cheap.latency_ms
        assert dear.loss_increase < cheap.loss_increase
    for choice in front:
        best = brute_force(problem, choice.latency_ms * (1 + 1e-9))
        assert best is not None
        assert choice.loss_increase <= best * 1.002 + 1e-4


def test_variants_are_the_full_net_and_others_evenly_cheaper() -> None:
    widths = {name: tuple(range(4, 65, 4)) for name in "abcdef"}
    found = draw_variants(widths, lambda one: float(sum(one.values())), 9, seed=1)
    assert found[0] == dict.fromkeys(widths, 64)
    prices = [sum(one.values()) / (6 * 64) for one in found]
    assert len({tuple(one.values()) for one in found}) == 9
    np.testing.assert_allclose(prices, np.linspace(1, 0.2, 9), atol=0.06)


def test_few_widths_give_few_variants() -> None:
    assert len(draw_variants({"b": (0, 1)}, lambda one: one["b"] + 1.0, 12, seed=0)) == 2


def residual(fed_by: int) -> tuple[list[ChannelGroup], list[Layer]]:
    """A branch of one layer that reads a concatenation of so many groups and writes one more."""
    names = [f"g{index}" for index in range(fed_by)]
    groups = [*(ChannelGroup(name, 64, ()) for name in (*names, "out")), ChannelGroup("b", 1, (), kind="branch")]
    cin = Extent(0, tuple((1, (name, "b")) for name in names))
    return groups, [conv("inside", cin, Extent(0, ((1, ("out", "b")),)))]


def test_a_branch_may_go_and_costs_nothing_then() -> None:
    groups, layers = residual(1)
    widths = candidate_widths(groups, layers, 16)
    assert widths["b"] == (0, 1)
    assert not any(shape.is_gone for shape in probe_shapes(layers, widths, 100))
    loss = {name: {width: float(max(chosen) - width) for width in chosen} for name, chosen in widths.items()}
    problem = Problem(tuple(layers), loss, table_of(layers, widths))
    assert choose_widths(problem, 1e-6).widths == {"g0": 64, "out": 64, "b": 0}
    kept = choose_widths(problem, predict_ms(problem, {"g0": 64, "out": 64, "b": 1}))
    assert kept.widths["b"] == 1


def test_a_branch_fed_by_many_groups_stays_and_can_still_be_planned() -> None:
    groups, layers = residual(9)
    widths = candidate_widths(groups, layers, 16)
    assert widths["b"] == (1,)
    loss = {name: {width: float(max(chosen) - width) for width in chosen} for name, chosen in widths.items()}
    problem = Problem(tuple(layers), loss, table_of(layers, widths))
    full = {name: max(chosen) for name, chosen in widths.items()}
    assert choose_widths(problem, 0.7 * predict_ms(problem, full)).latency_ms <= 0.7 * predict_ms(problem, full)
