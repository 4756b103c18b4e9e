import itertools
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.core.latency.layers import Extent, Layer, LayerShape
from edgeprune.core.latency.table import LatencyPoint, LatencyTable, TableKey
from edgeprune.core.planning import candidates
from edgeprune.core.planning.budget import Budget
from edgeprune.core.planning.candidates import probe_shapes
from edgeprune.core.planning.limits import SIZES, UNITS, Costs, Limits, count_costs, read_limits, stated_bytes
from edgeprune.core.planning.planner import Problem, choose_widths, find_fastest, predict_ms
from edgeprune.core.target import parse_target
from edgeprune.errors import InfeasibleBudget, PlanError, TargetError

KEY = TableKey("device", "onnxruntime", "1.0", "fp32", 1)
WIDTHS = (8, 16, 24)

Loss = dict[str, dict[int, float]]
Group = dict[str, int]


def extent(*groups: str, constant: int = 0) -> Extent:
    return Extent(constant, tuple((1, (group,)) for group in groups))


def conv(name: str, cin: Extent, cout: Extent) -> Layer:
    return Layer(name, LayerShape("conv", 8, 8, (3, 3), (1, 1), 1, (8, 8), (1, 1)), cin, cout)


def uneven(shape: LayerShape) -> float:
    """A staircase whose stairs are not equally high."""
    return 0.01 + 0.001 * -(-shape.cin // 16) * (-(-shape.cout // 8)) ** 0.7


def linear(shape: LayerShape) -> float:
    return 1e-3 * shape.cin


def table_of(
    layers: list[Layer], widths: dict[str, tuple[int, ...]], cost: Callable[[LayerShape], float] = uneven
) -> LatencyTable:
    shapes = sorted(probe_shapes(layers, widths, 10_000))
    return LatencyTable(KEY, tuple(LatencyPoint(shape, cost(shape), 0.0, 1.0) for shape in shapes))


def residual() -> tuple[list[Layer], dict[str, tuple[int, ...]]]:
    """A stem, a residual branch that may go, a layer that uses the stem's weights again, and a depthwise head."""
    inside = [
        conv("inner", Extent(0, ((1, ("stem", "branch")),)), Extent(0, ((1, ("inner", "branch")),))),
        conv("outer", Extent(0, ((1, ("inner", "branch")),)), Extent(0, ((1, ("stem", "branch")),))),
    ]
    head = [
        Layer("each", conv("", extent(), extent()).shape, extent("stem"), extent("stem"), extent("stem")),
        conv("head", extent("stem"), extent("head")),
        Layer("last", LayerShape("linear", 8, 10), extent("head"), extent(constant=10)),
    ]
    stem = conv("stem", extent(constant=3), extent("stem"))
    layers = [stem, *inside, replace(stem, name="stem@2"), *head]
    return layers, {"stem": WIDTHS, "inner": WIDTHS, "head": WIDTHS, "branch": (0, 1)}


def all_choices(problem: Problem) -> list[dict[str, int]]:
    names = list(problem.loss)
    return [dict(zip(names, chosen, strict=True)) for chosen in itertools.product(*problem.loss.values())]


def brute_force(problem: Problem, budget_ms: float, limits: Limits) -> float | None:
    """Least loss over every choice, each limit looked at as it is written."""
    fitting = []
    for widths in all_choices(problem):
        costs = count_costs(problem.layers, widths, limits.precision)
        fits = all(getattr(costs, name) <= limit for name, limit in limits.given.items())
        fits &= all(widths[group] == width for group, width in limits.fixed.items())
        if fits and predict_ms(problem, widths) <= budget_ms:
            fitting.append(sum(problem.loss[group][width] for group, width in widths.items()))
    return min(fitting, default=None)


rises = st.lists(st.floats(0.001, 10), min_size=2, max_size=2).map(lambda one: {24: 0.0, 16: one[0], 8: sum(one)})
losses = st.fixed_dictionaries(
    {"stem": rises, "inner": rises, "head": rises, "branch": st.floats(0.001, 10).map(lambda one: {1: 0.0, 0: one})}
)
shares = st.fixed_dictionaries({}, optional=dict.fromkeys(UNITS, st.floats(0.1, 1.0)))
group_limits = st.dictionaries(st.sampled_from(["stem", "inner", "head"]), st.sampled_from(WIDTHS), max_size=1)


@settings(max_examples=60, deadline=None)
@given(losses, shares, st.floats(0.2, 1.05) | st.just(inf), st.sampled_from(list(SIZES)), group_limits)
def test_plan_within_limits_is_the_optimum_that_brute_force_finds(
    loss: Loss, shares: dict[str, float], share: float, precision: str, fixed: Group
) -> None:
    layers, widths = residual()
    problem = Problem(tuple(layers), loss, table_of(layers, widths))
    full = {group: max(offered) for group, offered in widths.items()}
    whole = count_costs(layers, full, precision)
    caps = {name: max(1, round(one * getattr(whole, name))) for name, one in shares.items()}
    limits = Limits(**caps, precision=precision, fixed=fixed)
    budget_ms = share * predict_ms(problem, full)
    best = brute_force(problem, budget_ms, limits)
    asked = replace(problem, limits=limits)
    if best is None:
        with pytest.raises(InfeasibleBudget):
            choose_widths(asked, budget_ms)
        return
    choice = choose_widths(asked, budget_ms)
    assert not limits.find_exceeded(count_costs(layers, choice.widths, precision))
    assert choice.latency_ms <= budget_ms * (1 + 1e-6)
    assert choice.loss_increase <= best * 1.002 + 1e-4


@settings(max_examples=20, deadline=None)
@given(losses, shares)
def test_limits_hold_where_a_layer_is_fed_by_many_groups(loss: Loss, shares: dict[str, float]) -> None:
    """A concatenation that is followed by its total input: limits are linear there, so the plan is exact again."""
    names = ["stem", "inner", "head"]
    layers = [conv(name, extent(constant=3), extent(name)) for name in names]
    layers += [conv("joined", extent(*names, constant=5), extent(constant=10))]
    loss = {name: loss[name] for name in names}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "MAX_COMBINATIONS", 3)
        table = table_of(layers, dict.fromkeys(names, WIDTHS), linear)
        problem = Problem(tuple(layers), loss, table)
        whole = count_costs(layers, dict.fromkeys(names, 24))
        limits = Limits(**{name: max(1, round(share * getattr(whole, name))) for name, share in shares.items()})
        best = brute_force(problem, inf, limits)
        asked = replace(problem, limits=limits)
        if best is None:
            with pytest.raises(InfeasibleBudget):
                choose_widths(asked, inf)
            return
        choice = choose_widths(asked, inf)
    assert not limits.find_exceeded(count_costs(layers, choice.widths))
    assert choice.loss_increase <= best * 1.002 + 1e-4


def plain(limits: Limits) -> Problem:
    layers, widths = residual()
    loss = {group: {width: float(max(offered) - width) for width in offered} for group, offered in widths.items()}
    return Problem(tuple(layers), loss, table_of(layers, widths), limits=limits)


@pytest.mark.parametrize("name", list(UNITS))
def test_infeasible_limit_is_named_with_the_best_reachable_figure(name: str) -> None:
    problem = plain(Limits())
    narrowest = {"stem": 8, "inner": 8, "head": 8, "branch": 0}
    least = getattr(count_costs(problem.layers, narrowest), name)
    reachable = choose_widths(plain(Limits(**{name: least})), inf)
    assert getattr(count_costs(problem.layers, reachable.widths), name) == least
    with pytest.raises(InfeasibleBudget, match=rf"{least - 1:,} {UNITS[name]}: the narrowest choice has {least:,}"):
        choose_widths(plain(Limits(**{name: least - 1})), inf)


def test_latency_that_other_limits_forbid_is_named_with_them() -> None:
    """A board that is fastest with a wide stem: the budget can be met, and the parameters too, but not both."""
    problem = plain(Limits())
    slow_when_thin = tuple(
        replace(point, latency_ms=1.0 if point.shape.cin == 8 else 0.1) for point in problem.table.points
    )
    problem = replace(problem, table=replace(problem.table, points=slow_when_thin))
    fastest = find_fastest(problem)
    parameters = count_costs(problem.layers, fastest.widths).parameters
    limited = replace(problem, limits=Limits(parameters=parameters // 4))
    best = find_fastest(limited).latency_ms
    assert best > 1.5 * fastest.latency_ms
    with pytest.raises(
        InfeasibleBudget, match=rf"within {parameters // 4:,} parameters in layers is predicted at {best:.4g} ms"
    ):
        choose_widths(limited, 1.1 * fastest.latency_ms)


def test_a_group_keeps_the_width_that_it_must_have() -> None:
    choice = choose_widths(plain(Limits(parameters=2000, fixed={"head": 8})), inf)
    assert choice.widths["head"] == 8


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"fixed": {"stem": 20}}, r"group 'stem': no width of 20 is on offer; it has \[8, 16, 24\]"),
        ({"fixed": {"steam": 8}}, r"no group 'steam'.*did you mean 'stem'"),
    ],
)
def test_a_width_that_is_not_on_offer_is_refused(limits: dict[str, dict[str, int]], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        choose_widths(plain(Limits(**limits)), inf)


def test_costs_by_hand() -> None:
    """A 3x3 stem of 8 on 3 channels used twice, a branch that is gone, and what follows, in bytes of int8."""
    layers, _ = residual()
    found = count_costs(layers, {"stem": 8, "inner": 8, "head": 16, "branch": 0}, "int8")
    weights = {"stem": 3 * 8 * 9, "each": 8 * 9, "head": 8 * 16 * 9, "last": 16 * 10}
    biases = 8 + 8 + 16 + 10
    assert found == Costs(
        parameters=sum(weights.values()) + biases,
        weight_bytes=sum(weights.values()) + 4 * biases,
        macs=64 * (2 * weights["stem"] + weights["each"] + weights["head"]) + weights["last"],
        activation_bytes=64 * (8 + 16),
    )


@pytest.mark.parametrize(
    ("limits", "message"), [({"macs": 0}, "macs: 0 must be above zero"), ({"precision": "int9"}, "did you mean 'int8'")]
)
def test_figures_that_cannot_be_meant_are_refused(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Limits(**limits)


def test_file_budget_is_what_weights_may_take_beside_the_graph() -> None:
    budget = Budget(parameters=5000, file_bytes=20_000, macs=10**6)
    found = read_limits(budget, "int8", 3_000)
    assert found.given == {"parameters": 5000, "weight_bytes": 17_000, "macs": 10**6}
    with pytest.raises(InfeasibleBudget, match=r"20,000 bytes: 20,000 of them are not weights"):
        read_limits(budget, "int8", 20_000)


def test_parameters_that_no_layer_counts_are_taken_off_the_budget() -> None:
    assert read_limits(Budget(parameters=5000), "fp32", 0, 300).given == {"parameters": 4700}
    assert read_limits(Budget(macs=5), "fp32", 0, 300).given == {"macs": 5}
    assert read_limits(Budget(parameters=301), "fp32", 0, 300).given == {"parameters": 1}
    with pytest.raises(InfeasibleBudget, match=r"300 parameters: 300 of them belong to norms, embeddings"):
        read_limits(Budget(parameters=300), "fp32", 0, 300)


@pytest.mark.parametrize(("precision", "stated"), [("fp32", 512), ("fp16", 512), ("int8", 512 + 24), ("mixed", 536)])
def test_a_file_may_state_its_plan_and_in_int8_a_digit_for_each_channel(precision: str, stated: int) -> None:
    layers = [
        Layer(name, LayerShape("linear", 4, cout), Extent(4), Extent(cout)) for name, cout in (("a", 8), ("b", 16))
    ]
    assert stated_bytes(layers, precision) == stated


def test_budgets_of_a_target_are_read_together() -> None:
    table = {"latency_ms": 3, "confidence": 0.9, "parameters": 70_000, "file_bytes": 90_000, "activation_bytes": 65_536}
    found = parse_target({"description": "x", "budget": table}, "x", "x.toml").budget
    assert found == Budget(3.0, None, 0.9, 70_000, 90_000, None, 65_536)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"parameters": 0.5}, "parameters: 0.5 has the wrong type"),
        ({"file_bytes": 0}, "file_bytes: 0 must be above zero"),
        ({"confidence": 95}, "confidence: 95 must be at least 0.5 and below 1"),
        ({"file_byte": 9}, "did you mean 'file_bytes'"),
    ],
)
def test_budgets_that_cannot_be_meant_are_refused(table: dict[str, float], message: str) -> None:
    with pytest.raises(TargetError, match=message):
        parse_target({"description": "x", "budget": table}, "x", "x.toml")


@pytest.mark.parametrize("excess", [0, 1])
def test_a_limit_that_is_exceeded_by_less_than_the_solver_sees_is_kept(excess: int) -> None:
    """One parameter of four million is below the solver's tolerance of a millionth."""
    layer = Layer("wide", LayerShape("linear", 2048, 2048), extent(constant=2048), extent("a"))
    widths = {"a": (2040, 2048)}
    whole = count_costs([layer], {"a": 2048}, "fp32").parameters
    limits = Limits(parameters=whole - excess, precision="fp32")
    loss = {"a": {2040: 1.0, 2048: 0.0}}
    problem = Problem((layer,), loss, table_of([layer], widths, linear), limits=limits)
    assert choose_widths(problem, inf).widths == {"a": 2040 if excess else 2048}


def test_activations_of_a_layer_that_is_fed_by_many_groups_count_each_width_once() -> None:
    """Input and output of a convolution over 8x8 places in float: 256 bytes a channel."""
    names = [f"branch{index}" for index in range(6)]
    widths = {name: tuple(range(4, 65, 4)) for name in names}
    loss = {name: {width: (64 - width) * (1 + i) / 64 for width in widths[name]} for i, name in enumerate(names)}
    layer = conv("joined", extent(*names), extent(constant=10))
    limits = Limits(activation_bytes=(192 + 10) * 256, precision="fp32")
    problem = Problem((layer,), loss, table_of([layer], widths, linear), limits=limits)
    chosen = choose_widths(problem, inf).widths
    assert (sum(chosen.values()), chosen["branch5"], chosen["branch0"]) == (192, 64, 4)
