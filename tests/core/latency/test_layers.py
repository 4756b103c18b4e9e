"""Sizes that come out of a layer's window: those of torch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from edgeprune.core.latency.layers import TRANSPOSED, LayerShape, describe_linear

small = st.integers(1, 4)


@given(st.integers(1, 12), st.integers(1, 12), small, small, st.integers(0, 3), small)
def test_what_comes_out_is_what_torch_gives(
    height: int, width: int, kernel: int, stride: int, padding: int, dilation: int
) -> None:
    for op, layer in (("conv", nn.Conv2d), (TRANSPOSED, nn.ConvTranspose2d)):
        one = layer(1, 1, kernel, stride, padding=padding, dilation=dilation, device="meta")
        try:
            expected = tuple(one(torch.empty(1, 1, height, width, device="meta")).shape[2:])
        except RuntimeError:
            assume(False)
        window = [(value, value) for value in (kernel, stride)]
        shape = LayerShape(op, 1, 1, *window, 1, (height, width), (padding, padding), dilation=(dilation, dilation))
        assert shape.output_size == expected


@pytest.mark.parametrize("op", ["linear", "add"])
def test_of_an_operator_without_a_window_as_much_comes_out_as_goes_in(op: str) -> None:
    assert LayerShape(op, 8, 8, size=(5, 7)).output_size == (5, 7)


def test_a_linear_layer_on_one_vector_has_no_axis() -> None:
    assert describe_linear(8, 16, 1).size == ()
    assert describe_linear(8, 16, 2).size == describe_linear(8, 16, 2).output_size == (2,)
