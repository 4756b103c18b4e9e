"""What takes time beside layers, told from the operators of a net in order: on which axes, after which layer."""

from __future__ import annotations

from edgeprune.core.latency.layers import Window
from edgeprune.core.latency.steps import (
    ADD,
    ATTENTION,
    CURVE,
    MUL,
    PERMUTE,
    POINTWISE,
    POOL,
    PRODUCT,
    REDUCE,
    SCALE,
    SOFTMAX,
    VIEW,
    Operator,
    Step,
    list_operators,
)

Sizes = dict[str, tuple[int, ...]]


def step(kind: str, reads: str, writes: str, axes: tuple[int, ...] = (), window: Window | None = None) -> Step:
    """A step that is named by what it writes."""
    return Step(writes, kind, tuple(reads.split()), writes, axes, window)


def only(steps: list[Step], sizes: Sizes, batch: int = 2) -> Operator:
    """The one operator that is listed."""
    (operator,) = list_operators(steps, sizes, batch)
    return operator


def test_channels_of_a_convolution_are_its_second_axis_whatever_its_rank() -> None:
    sizes: Sizes = {"x": (2, 3, 20), "a": (2, 8, 20), "b": (2, 8, 20)}
    operator = only([step("conv", "x", "a"), step(POINTWISE, "a", "b")], sizes)
    assert (operator.cin, operator.places) == (("b", (1,)), ("b", (0, 2)))
    assert (operator.shape.cin, operator.shape.size) == (8, (20,))


def test_channels_of_a_linear_layer_are_its_last_axis_whatever_its_rank() -> None:
    sizes: Sizes = {"x": (2, 4, 5, 3), "a": (2, 4, 5, 8), "b": (2, 4, 5, 8)}
    operator = only([step("linear", "x", "a"), step(POINTWISE, "a", "b")], sizes)
    assert (operator.cin, operator.shape.cin, operator.shape.size) == (("b", (3,)), 8, (20,))


def test_channels_are_followed_through_a_permutation_and_a_view() -> None:
    sizes: Sizes = {"x": (2, 3, 4, 5), "a": (2, 8, 4, 5), "v": (2, 8, 20), "p": (2, 20, 8), "b": (2, 20, 8)}
    steps = [
        step("conv", "x", "a"),
        step(VIEW, "a", "v"),
        step(PERMUTE, "v", "p", (0, 2, 1)),
        step(POINTWISE, "p", "b"),
    ]
    operator = only(steps, sizes)
    assert (operator.cin, operator.shape.cin, operator.shape.size) == (("b", (2,)), 8, (20,))


def test_an_operator_follows_its_layer_through_what_has_one_input() -> None:
    sizes: Sizes = dict.fromkeys("xadgs", (2, 8, 4, 4)) | {"v": (2, 8, 16), "b": (2, 8, 16)}
    assert only([step("conv", "x", "a"), step(VIEW, "a", "v"), step(CURVE, "v", "b")], sizes).layer == "a"
    silu = [step("conv", "x", "a"), step("sigmoid", "a", "g"), step(MUL, "a g", "s"), step(CURVE, "s", "d")]
    assert [one.layer for one in list_operators(silu, sizes, 2)] == ["a", "a"]


def test_an_operator_behind_a_sum_follows_no_layer() -> None:
    sizes: Sizes = dict.fromkeys("xabcd", (2, 8, 4, 4))
    steps = [step("conv", "x", "a"), step("conv", "a", "b"), step(ADD, "a b", "c"), step(CURVE, "c", "d")]
    assert [one.layer for one in list_operators(steps, sizes, 2)] == ["", ""]
    assert only([step(CURVE, "x", "a")], sizes).layer == ""


def test_a_product_counts_its_depth_and_its_columns_in_each_part() -> None:
    sizes: Sizes = {"q": (2, 4, 5, 8), "k": (2, 4, 8, 6), "p": (2, 4, 5, 6)}
    operator = only([step(PRODUCT, "q k", "p")], sizes)
    assert (operator.cin, operator.cout) == (("q", (0, 1, 3)), ("p", (0, 1, 3)))
    assert operator.groups == ("p", (0, 1))
    shape = operator.shape
    assert (shape.cin, shape.cout, shape.groups, shape.size) == (4 * 8, 4 * 6, 4, (5,))


def test_a_reduction_over_space_is_a_pool_and_another_is_not() -> None:
    sizes: Sizes = {"x": (2, 8, 4, 5), "a": (2, 8, 1, 1), "b": (2, 1, 4, 5)}
    pooled = only([step(REDUCE, "x", "a", (2, 3))], sizes)
    assert (pooled.shape.op, pooled.shape.kernel, pooled.shape.output_size) == (POOL, (4, 5), (1, 1))
    summed = only([step(REDUCE, "x", "b", (1,))], sizes)
    assert (summed.shape.op, summed.shape.cin, summed.shape.size) == (REDUCE, 8, (20,))
    assert (summed.cin, summed.places) == (("x", (1,)), ("x", (0, 2, 3)))


def test_a_pool_is_described_by_its_window() -> None:
    sizes: Sizes = {"x": (2, 8, 9, 7), "a": (2, 8, 4, 3)}
    operator = only([step(POOL, "x", "a", window=Window((3, 3), (2, 2)))], sizes)
    assert (operator.shape.kernel, operator.shape.stride, operator.shape.output_size) == ((3, 3), (2, 2), (4, 3))
    assert (operator.cin, operator.cout, operator.shape.cin) == (("x", (1,)), ("x", (1,)), 8)


def test_a_softmax_between_two_products_is_attention_with_what_scales_it() -> None:
    sizes: Sizes = {"q": (2, 4, 5, 8), "k": (2, 4, 8, 6), "v": (2, 4, 6, 8), "o": (2, 4, 5, 8)}
    sizes |= dict.fromkeys(("s", "s2", "p"), (2, 4, 5, 6))
    steps = [step(PRODUCT, "q k", "s"), step(SCALE, "s", "s2"), step(SOFTMAX, "s2", "p"), step(PRODUCT, "p v", "o")]
    operator = only(steps, sizes)
    assert (operator.step.name, operator.shape.op, operator.cin) == ("o", ATTENTION, ("q", (0, 1, 3)))
    assert (operator.shape.size, operator.shape.groups) == ((5, 6), 4)
    apart = [one.shape.op for one in list_operators([step(PRODUCT, "q k", "s"), step(SOFTMAX, "s", "p")], sizes, 2)]
    assert apart == [PRODUCT, SOFTMAX]


def test_a_product_of_two_matrices_has_rows_and_one_of_a_vector_has_one() -> None:
    sizes: Sizes = {"q": (5, 8), "k": (8, 6), "p": (5, 6), "a": (8,), "b": (6,)}
    assert only([step(PRODUCT, "q k", "p")], sizes, batch=1).shape.size == (5,)
    assert only([step(PRODUCT, "a k", "b")], sizes, batch=1).shape.size == (1,)
