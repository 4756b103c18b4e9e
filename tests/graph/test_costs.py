"""What a net costs, counted on the net itself, beside what its file holds."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from edgeprune.core.planning.limits import count_costs
from edgeprune.exporting.onnx.export import export_onnx
from edgeprune.graph.costs import count_net, count_other_parameters, full_widths
from edgeprune.graph.groups import find_groups
from edgeprune.graph.surgery import apply_plan
from edgeprune.graph.trace import trace_model
from edgeprune.recipes.networks import ResNet8

IMAGE = torch.zeros(1, 1, 32, 32)


def stored_weights(path: Path) -> int:
    """Values that the convolutions and linear layers of an ONNX file hold."""
    graph = onnx.load(path).graph
    sizes = {one.name: onnx.numpy_helper.to_array(one).size for one in graph.initializer}
    used = {name for node in graph.node if node.op_type in ("Conv", "Gemm") for name in node.input[1:]}
    return sum(size for name, size in sizes.items() if name in used)


def trained() -> nn.Module:
    """Batch norms that shift, as trained ones do."""
    net = ResNet8(in_channels=1).eval()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.bias)
    return net


@pytest.mark.parametrize("share", [1, 2])
def test_parameters_are_those_of_the_file_batch_norm_folded(share: int, tmp_path: Path) -> None:
    program = trace_model(trained(), IMAGE)
    analysis = find_groups(program)
    keep = {one.name: range(one.size // share) for one in analysis.groups if not one.frozen and not one.is_branch}
    pruned = apply_plan(program, analysis, keep)
    export_onnx(pruned, IMAGE, tmp_path / "net.onnx", False)
    costs = count_net(pruned, find_groups(pruned), "fp32")
    assert costs.parameters == stored_weights(tmp_path / "net.onnx")
    planned = count_costs(analysis.layers, full_widths(analysis) | {name: len(kept) for name, kept in keep.items()})
    assert costs == planned
    assert count_other_parameters(pruned, find_groups(pruned)) == 0
    assert costs.weight_bytes == 4 * costs.parameters


class Tokens(nn.Module):
    """Linear layers on tokens with a position each, and a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(6, 8))
        self.norm = nn.LayerNorm(8)
        self.body = nn.Linear(8, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.norm(x + self.position)).relu().mean(1))


def test_what_no_layer_holds_is_counted_too() -> None:
    net, example = Tokens().eval(), torch.zeros(1, 6, 8)
    program = trace_model(net, example)
    analysis = find_groups(program)
    assert count_other_parameters(program, analysis) == 6 * 8 + 2 * 8
    assert count_net(program, analysis, "fp32").parameters == sum(value.numel() for value in net.parameters())


@pytest.mark.parametrize(("precision", "activations"), [("fp32", 4), ("fp16", 2), ("int8", 1), ("dynamic-int8", 4)])
def test_activations_take_what_the_file_holds_them_in(precision: str, activations: int) -> None:
    program = trace_model(ResNet8(in_channels=1).eval(), IMAGE)
    costs = count_net(program, find_groups(program), precision)
    assert costs.activation_bytes == activations * 32 * 32 * (16 + 16)
