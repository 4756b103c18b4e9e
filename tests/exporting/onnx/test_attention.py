"""Attention in ONNX: forms that torch's exporter refuses, and those that it takes, written as it writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from export_nets import normal
from graph_nets import Net
from torch import Tensor, nn

from edgeprune.exporting.checks import run_torch
from edgeprune.exporting.foreign import quiet
from edgeprune.exporting.onnx.attention import write_out_attention
from edgeprune.exporting.onnx.export import export_onnx
from edgeprune.exporting.runners import run_file
from edgeprune.graph.trace import trace_model

attend = F.scaled_dot_product_attention
Parts = tuple[Tensor, Tensor, Tensor]


def in_heads(net: Net, x: Tensor) -> Parts:
    q, k, v = net.qkv(x).reshape(x.shape[0], 8, 3, 2, 6).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def joined(mixed: Tensor) -> Tensor:
    return mixed.transpose(1, 2).reshape(mixed.shape[0], 8, 12)


def in_windows(net: Net, x: Tensor) -> Tensor:
    """Five dimensions: windows, then heads."""
    q, k, v = net.qkv(x).reshape(x.shape[0], 2, 4, 3, 2, 6).permute(3, 0, 4, 1, 2, 5).unbind(0)
    return attend(q, k, v).permute(0, 2, 3, 1, 4).reshape(x.shape[0], 8, 12)


def in_shape(net: Net, x: Tensor) -> Tensor:
    """Windows that keep all sizes but the last, which is left open."""
    windows = x.reshape(x.shape[0], 2, 4, 12)
    q, k, v = net.qkv(windows).reshape((*windows.shape[:-1], 3, -1)).permute(3, 0, 1, 2, 4).unbind(0)
    return attend(q, k, v).reshape((*x.shape[:-1], -1))


def grouped(net: Net, x: Tensor) -> Tensor:
    q, k, v = in_heads(net, x)
    q = torch.cat((q, q * 0.5), 1).reshape(x.shape[0], 2, 2, 8, 6).transpose(1, 2).flatten(1, 2)
    return joined(attend(q, k, v, enable_gqa=True)[:, 1:3])


FORMS: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "plain": lambda net, x: joined(attend(*in_heads(net, x))),
    "scaled": lambda net, x: joined(attend(*in_heads(net, x), scale=0.7)),
    "causal": lambda net, x: joined(attend(*in_heads(net, x), is_causal=True)),
    "masked": lambda net, x: joined(attend(*in_heads(net, x), attn_mask=torch.ones(8, 8).tril(2) > 0)),
    "with_a_bias_that_is_learnt": lambda net, x: joined(attend(*in_heads(net, x), attn_mask=net.bias.unsqueeze(0))),
    "of_one_head": lambda net, x: attend(*net.qkv(x).chunk(3, -1)),
    "in_windows": in_windows,
    "in_shape": in_shape,
    "grouped": grouped,
}


def build(form: Callable[[Net, Tensor], Tensor]) -> nn.Module:
    torch.manual_seed(0)
    net = Net(
        lambda net, x: net.head(form(net, x)),
        qkv=nn.Linear(12, 36),
        head=nn.Linear(12, 3),
        bias=nn.Parameter(torch.randn(2, 8, 8)),
    )
    return trace_model(net, torch.zeros(1, 8, 12))


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_attention_is_exported_and_computes_the_same(name: str, tmp_path: Path) -> None:
    program = build(FORMS[name])
    export_onnx(program, torch.zeros(1, 8, 12), tmp_path / "net.onnx")
    inputs = normal(3, 8, 12) * 3
    np.testing.assert_allclose(run_file(tmp_path / "net.onnx", inputs), run_torch(program, inputs), atol=1e-5)


@pytest.mark.parametrize("name", ["plain", "scaled"])
def test_what_the_exporter_takes_is_written_as_it_writes_it(name: str, tmp_path: Path) -> None:
    program, example = build(FORMS[name]), torch.zeros(1, 8, 12)
    export_onnx(program, example, tmp_path / "ours.onnx")
    with quiet():
        torch.onnx.export(program, (example,), tmp_path / "its.onnx", dynamo=True, external_data=False, verbose=False)
    ours, its = ([node.op_type for node in onnx.load(tmp_path / f"{one}.onnx").graph.node] for one in ("ours", "its"))
    assert [name for name in ours if name != "Reshape"] == [name for name in its if name != "Reshape"]


def test_the_given_program_keeps_its_operator_and_shares_its_weights() -> None:
    program = build(FORMS["plain"])
    code = program.code
    written = write_out_attention(program)
    assert program.code == code
    assert "scaled_dot_product" in code
    assert "scaled_dot_product" not in written.code
    assert written.get_parameter("qkv.weight") is program.get_parameter("qkv.weight")
    assert write_out_attention(written) is written
