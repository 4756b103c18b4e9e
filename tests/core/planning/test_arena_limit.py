import itertools
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.core.latency.layers import Extent, Layer, LayerShape
from edgeprune.core.memory.steps import ArenaLimit, NetMemory, Tensor
from edgeprune.core.planning import planner
from edgeprune.core.planning.limits import Limits
from edgeprune.core.planning.planner import Problem, choose_widths, find_fastest
from edgeprune.errors import InfeasibleBudget

WIDTHS = (8, 16, 24)
GROUPS = ("a", "b", "c")

Loss = dict[str, dict[int, float]]


def size(constant: int = 0, **factors: int) -> Extent:
    return Extent(constant, tuple((factor, (group,)) for group, factor in factors.items()))


def layers() -> tuple[Layer, ...]:
    shape = LayerShape("conv", 8, 8, (3, 3), (1, 1), 1, (8, 8), (1, 1))
    return tuple(Layer(group, shape, Extent(3), size(**{group: 1})) for group in GROUPS)


def all_choices(loss: Loss) -> list[dict[str, int]]:
    return [dict(zip(loss, chosen, strict=True)) for chosen in itertools.product(*loss.values())]


rises = st.lists(st.floats(0.01, 10), min_size=2, max_size=2).map(lambda one: {24: 0.0, 16: one[0], 8: sum(one)})
losses = st.fixed_dictionaries(dict.fromkeys(GROUPS, rises))
one_group = st.tuples(st.integers(1, 40), st.sampled_from(GROUPS)).map(lambda one: size(**{one[1]: one[0]}))
several = st.dictionaries(st.sampled_from(GROUPS), st.integers(1, 20), min_size=2).map(lambda one: size(**one))
products = st.tuples(st.integers(0, 50), st.integers(1, 3)).map(
    lambda one: Extent(one[0], ((one[1], ("a", "b")), (2, ("c",))))
)
constants = st.integers(1, 900).map(Extent)
sizes = one_group | several | products | constants


@st.composite
def memories(draw: st.DrawFn) -> NetMemory:
    """Tensors of any sizes, alive at any steps, beside an overhead that widths change too."""
    count = draw(st.integers(2, 5))
    tensors = []
    for number in range(draw(st.integers(2, 6))):
        first = draw(st.integers(0, count))
        tensors.append(Tensor(f"t{number}", draw(sizes), first, draw(st.integers(first, count))))
    return NetMemory(tuple(tensors), tuple(f"op{number}" for number in range(count)), draw(st.just(Extent()) | sizes))


@settings(max_examples=150, deadline=None)
@given(losses, memories(), st.floats(0.2, 1.0))
def test_plan_is_the_one_that_brute_force_finds_by_laying_out_every_choice(
    loss: Loss, memory: NetMemory, share: float
) -> None:
    most = int(share * memory.count(dict.fromkeys(GROUPS, 24)))
    problem = Problem(layers(), loss, limits=Limits(arena=ArenaLimit(memory, most)))
    fitting = [widths for widths in all_choices(loss) if memory.count(widths) <= most]
    best = min((sum(loss[group][width] for group, width in widths.items()) for widths in fitting), default=None)
    if best is None:
        with pytest.raises(InfeasibleBudget):
            choose_widths(problem, inf)
        return
    choice = choose_widths(problem, inf)
    assert memory.count(choice.widths) <= most
    assert choice.loss_increase <= best * 1.002 + 1e-4


def fragmented() -> tuple[Loss, NetMemory]:
    """A residual block with a padded tensor after it, which is the largest: what is put above it leaves a gap that the
    block's output does not fit into, although the bytes are free."""
    steps = {"stem": (0, 3), "inner": (1, 2), "outer": (2, 3), "sum": (3, 6)}
    block = tuple(Tensor(name, size(b=32), *ends) for name, ends in steps.items())
    loss = {group: {24: 0.0, 16: 1.0, 8: 2.0} for group in GROUPS}
    return loss, NetMemory((Tensor("padded", size(a=36), 4, 5), *block), tuple("uvwxyz"))


def test_a_layout_with_gaps_counts_not_the_sum_of_what_is_alive() -> None:
    loss, memory = fragmented()
    whole = dict.fromkeys(GROUPS, 24)
    assert memory.count(whole) > max(memory.alive_bytes(whole))
    problem = Problem(layers(), loss, limits=Limits(arena=ArenaLimit(memory, memory.count(whole) - 1)))
    choice = choose_widths(problem, inf)
    assert choice.loss_increase > 0
    assert memory.count(choice.widths) < memory.count(whole)


def test_after_many_gaps_some_memory_is_kept_free_and_the_gap_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "FRAGMENTED", 1)
    loss, memory = fragmented()
    problem = Problem(
        layers(), loss, limits=Limits(arena=ArenaLimit(memory, memory.count(dict.fromkeys(GROUPS, 24)) - 1))
    )
    choice = choose_widths(problem, inf)
    assert memory.count(choice.widths) <= problem.limits.arena.most_bytes
    assert choice.gap > 0


def test_too_big_is_told_with_the_step_its_tensors_and_the_least_that_can_be_had() -> None:
    loss, _ = fragmented()
    tensors = (Tensor("image", Extent(100), 0, 1), Tensor("stem", size(a=100), 1, 2), Tensor("head", size(b=1), 2, 2))
    memory = NetMemory(tensors, ("CONV_2D", "POOL"), Extent(40))
    problem = Problem(layers(), loss, limits=Limits(arena=ArenaLimit(memory, 900)))
    with pytest.raises(InfeasibleBudget) as refusal:
        find_fastest(problem)
    text = str(refusal.value)
    assert "no widths meet 900 bytes of SRAM: the narrowest choice needs 952" in text
    words = "step 1 of 2 (CONV_2D): the output of step 1 (CONV_2D) (800 bytes) and the input (100 bytes)"
    assert f"too big by 52 bytes, because of {words}" in text
    assert "beside 40 bytes that the interpreter needs" in text
    assert choose_widths(Problem(layers(), loss, limits=Limits(arena=ArenaLimit(memory, 952))), inf).widths["a"] == 8


def test_memory_is_named_where_the_latency_cannot_be_had_within_it() -> None:
    loss, memory = fragmented()
    problem = Problem(layers(), loss, limits=Limits(arena=ArenaLimit(memory, 900)))
    with pytest.raises(InfeasibleBudget, match=r"narrowest choice within 900 bytes of SRAM"):
        choose_widths(problem, -1.0)


def test_a_tensor_is_called_by_its_step() -> None:
    tensors = (Tensor("x", Extent(9), 0, 1), Tensor("scratch", Extent(9), 1, 1), Tensor("y", Extent(9), 2, 2))
    memory = NetMemory(tensors, ("MEAN", "SOFTMAX"))
    assert [memory.describe(tensor) for tensor in tensors] == [
        "the input", "the workspace of step 1 (MEAN)", "the output of step 2 (SOFTMAX)",
    ]  # fmt: skip
