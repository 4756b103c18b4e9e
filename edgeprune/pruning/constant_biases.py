"""A constant that is added to each output of a layer in a graph: into a bias, or off a batch norm's mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from edgeprune.graph.nodes import arg
from edgeprune.graph.operators.table import find_operator


def add_constant_(node: Node, pruned: GraphModule, change: Tensor) -> None:
    """Add a constant to each output of a layer: to its bias, its batch norm's mean, or as a new bias."""
    bias, user = arg(node, 2, "bias"), next(iter(node.users))
    mean = user.args[3] if len(node.users) == 1 and find_operator(user).is_batch_norm else None
    with torch.no_grad():
        if bias is not None and _reads_alone(bias, pruned):
            pruned.get_parameter(str(bias.target)).add_(change)
        elif bias is None and isinstance(mean, Node) and _reads_alone(mean, pruned):
            pruned.get_buffer(str(mean.target)).sub_(change)
        else:
            _new_bias_(node, pruned, change)


def _reads_alone(tensor: Node, pruned: GraphModule) -> bool:
    """Whether a parameter or buffer has a single use."""
    same = [node for node in pruned.graph.find_nodes(op="get_attr") if node.target == tensor.target]
    return tensor.op == "get_attr" and sum(len(node.users) for node in same) == 1


def _new_bias_(node: Node, pruned: GraphModule, change: Tensor) -> None:
    """A bias of the layer's own, as a parameter beside its weight."""
    weight, old = arg(node, 1), arg(node, 2, "bias")
    if old is not None:
        change = change + pruned.get_parameter(str(old.target)).detach()
    owner, _, _ = str(weight.target).rpartition(".")
    module = pruned.get_submodule(owner)
    name = f"bias_of_{node.name}" if getattr(module, "bias", None) is not None else "bias"
    module.register_parameter(name, nn.Parameter(change))
    with pruned.graph.inserting_before(node):
        bias = pruned.graph.get_attr(f"{owner}.{name}" if owner else name)
    bias.meta["val"] = weight.meta["val"].new_empty([len(change)])
    node.args = (*node.args[:2], bias, *node.args[3:])
