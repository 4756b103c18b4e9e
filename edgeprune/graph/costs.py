"""What a net costs at given group widths."""

from __future__ import annotations

from collections.abc import Mapping

from torch.fx import GraphModule

from edgeprune.core.layers import LayerShape
from edgeprune.graph.groups import Analysis


def count_parameters(program: GraphModule) -> int:
    """Parameters of the graph as it is (buffers not counted)."""
    return sum(value.numel() for value in program.parameters())


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
