"""A plan applied to the user's own module, where its sizes live in parameters and in standard layers."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.fx import GraphModule, Node

from edgeprune.errors import GraphError
from edgeprune.graph.analysis import Analysis
from edgeprune.graph.costs import layer_shapes
from edgeprune.graph.operators.table import find_operator
from edgeprune.graph.proof import same_outputs
from edgeprune.graph.surgery import apply_plan, branches_cut, sliced_tensors
from edgeprune.graph.trace import Example, named_tensors

TOLERANCE = 1e-9


def apply_to_module(
    model: nn.Module, program: GraphModule, analysis: Analysis, keep: Mapping[str, Sequence[int]], example: Example
) -> nn.Module:
    """A copy of `model`, which `program` is the graph of, with the kept channels only.

    Its code runs as it is, so this works where sizes are read from parameters or from attributes of standard
    layers; the copy is compared with the pruned graph before it is given out.

    Raises:
        PlanError: the plan does not fit.
        GraphError: the model's code has sizes of its own, or the plan cuts a branch that the code would still
            run, so that only the pruned graph can be had.
    """
    if branches_cut(analysis, keep):
        raise GraphError(f"{type(model).__name__}: its code runs the branches that the plan cuts; use the pruned graph")
    pruned = apply_plan(program, analysis, keep)
    module = copy.deepcopy(model, sliced_tensors(named_tensors(model), analysis, keep))
    widths = {name: len(channels) for name, channels in keep.items()}
    groups = {name.split("@")[0]: shape.groups for name, shape in layer_shapes(analysis, widths).items()}
    groups |= _norm_groups(pruned)
    for name, layer in module.named_modules():
        _resize_(layer, groups.get(name, 1))
    was_training = module.training
    try:
        error = same_outputs(pruned, module.eval(), example)
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as exc:
        raise GraphError(
            f"{type(model).__name__}: its code has sizes of its own ({exc}); use the pruned graph"
        ) from exc
    if error > TOLERANCE:
        raise GraphError(f"{type(model).__name__}: pruned, its code computes something else; use the pruned graph")
    return module.train(was_training)


def _norm_groups(pruned: GraphModule) -> dict[str, int]:
    """The number of groups of every group norm that has a weight, by module."""
    nodes = [node for node in pruned.graph.nodes if "groups" in find_operator(node).places]
    weights = {node: node.args[2] for node in nodes if len(node.args) > 2 and isinstance(node.args[2], Node)}
    return {str(weight.target).removesuffix(".weight"): int(node.args[1]) for node, weight in weights.items()}


def _resize_(layer: nn.Module, groups: int) -> None:
    """Set a standard layer's size attributes from its parameters."""
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, torch.Tensor):
        _resize_recurrent_(layer)
        return
    sizes = tuple(weight.shape)
    if isinstance(layer, nn.modules.conv._ConvNd):
        layer.groups = groups
        wide = sizes[1] * groups
        layer.in_channels, layer.out_channels = (sizes[0], wide) if layer.transposed else (wide, sizes[0])
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = sizes
    elif isinstance(layer, (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)):
        layer.num_features = sizes[0]
    elif isinstance(layer, (nn.LayerNorm, nn.RMSNorm)):
        layer.normalized_shape = sizes
    elif isinstance(layer, nn.GroupNorm):
        layer.num_groups, layer.num_channels = groups, sizes[0]
    elif isinstance(layer, nn.Embedding):
        layer.num_embeddings, layer.embedding_dim = sizes
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = sizes[0]


def _resize_recurrent_(layer: nn.Module) -> None:
    if isinstance(layer, nn.RNNBase):
        weight = layer.get_parameter("weight_hh_l0")
        layer.hidden_size, layer.input_size = weight.shape[1], layer.get_parameter("weight_ih_l0").shape[1]
        layer.flatten_parameters()
