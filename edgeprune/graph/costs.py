"""What a net costs at given group widths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch.fx import GraphModule

from edgeprune.core.latency.layers import LayerShape
from edgeprune.core.planning.limits import Costs, count_costs
from edgeprune.graph.analysis import Analysis
from edgeprune.graph.operators.table import find_operator


def count_parameters(program: GraphModule) -> int:
    """Parameters of the graph as it is (buffers not counted)."""
    return sum(value.numel() for value in program.parameters())


def count_other_parameters(program: GraphModule, analysis: Analysis) -> int:
    """Parameters beside the weights and biases of layers, and beside the batch norms that are folded into them.

    Of layer norms, embeddings, recurrent cells and the like: what
    :func:`edgeprune.core.planning.limits.count_layer` leaves out.
    """
    layers = {layer.name for layer in analysis.layers if layer.shape.has_weights}
    counted = {f"{name}.{part}" for name in layers for part in ("weight", "bias")}
    for node in program.graph.nodes:
        if find_operator(node).is_batch_norm:
            counted |= {str(source.target) for source in node.all_input_nodes if source.op == "get_attr"}
    return sum(value.numel() for name, value in program.named_parameters() if name not in counted)


def count_net(program: GraphModule, analysis: Analysis, precision: str) -> Costs:
    """What a net costs as it is, its file in a precision: counted on the net itself."""
    costs = count_costs(analysis.layers, full_widths(analysis), precision)
    return replace(costs, parameters=costs.parameters + count_other_parameters(program, analysis))


def full_widths(analysis: Analysis) -> dict[str, int]:
    """Every group at its full width."""
    return {group.name: group.size for group in analysis.groups}


def layer_shapes(analysis: Analysis, widths: Mapping[str, int]) -> dict[str, LayerShape]:
    """The shape of every convolution and linear layer at given widths; groups that are not named stay whole."""
    all_widths = full_widths(analysis) | dict(widths)
    return {layer.name: layer.at(all_widths) for layer in analysis.layers}


def list_shapes(analysis: Analysis, widths: Mapping[str, int]) -> list[LayerShape]:
    """The shape of everything that takes time at given widths, layers first, as they are read from a file."""
    all_widths = full_widths(analysis) | dict(widths)
    shapes = [layer.at(all_widths) for layer in (*analysis.layers, *analysis.operators)]
    return [shape for shape in shapes if not shape.is_gone]


def layer_macs(analysis: Analysis, widths: Mapping[str, int]) -> dict[str, int]:
    """Multiply-accumulates of every convolution and linear layer for one input, at given widths."""
    return {name: shape.macs for name, shape in layer_shapes(analysis, widths).items()}


def count_macs(analysis: Analysis, widths: Mapping[str, int]) -> int:
    """Multiply-accumulates of all convolutions and linear layers for one input, at given widths."""
    return sum(layer_macs(analysis, widths).values())
