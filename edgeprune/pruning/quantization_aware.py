"""Train a net on with the rounding of int8 in its forward pass, so that int8 files of it lose less.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018;
Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018. What is trained is the float
net itself: it has no quantization parameter, so the exporters find the ranges as they do for any net.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgeprune.graph.operators.table import find_operator
from edgeprune.graph.trace import copy_program, named_tensors
from edgeprune.pruning.recover import Course, Recovered, recover
from edgeprune.recipes.load import Recipe

LEARNING_RATE_SHARE = 0.1
"""Of the recipe's learning rate: a trained net only settles into the grid (Krishnamoorthi, 2018, section 6)."""
ACTIVATION_BITS = 8
WEIGHT_BITS = 8


def train_quantization_aware(
    program: GraphModule,
    teacher: GraphModule,
    recipe: Recipe,
    progress: Callable[[str], None],
    course: Course,
) -> Recovered:
    """Train `program` (eval mode) for the recipe's quantization-aware epochs; resumable as :func:`recover` is.

    It is taught by `teacher`; of its states, the one before training included, that is kept whose quantized copy
    answers the held-out data best.

    Raises:
        EdgepruneError: the loss stops being finite.
        RunError: the checkpoint cannot be written.
    """
    settings = recipe.finetune
    rate = settings.learning_rate * LEARNING_RATE_SHARE
    settings = replace(settings, epochs=settings.quantization_aware_epochs, learning_rate=rate)
    course = replace(course, make_rounding_copy=fake_quantize)
    return recover(program, teacher, replace(recipe, finetune=settings), progress, course)


def fake_quantize(program: GraphModule, weight_bits: int = WEIGHT_BITS) -> GraphModule:
    """A copy that rounds weights and activations to integers and back; it shares all tensors with `program`.

    Weights have a symmetric scale per output channel. A batch norm after them multiplies whole channels, so rounding
    before or after it is folded in is the same. Activations have one range per tensor, from zero or below to zero or
    above, that of the batch at hand: the minimum and maximum that calibration looks for, over fewer inputs. Gradients
    pass straight through the rounding (Bengio et al., 2013).
    """
    quantized = copy_program(program, {id(value): value for value in named_tensors(program).values()})
    for node in list(quantized.graph.nodes):
        family = find_operator(node)
        if family.scale_axis is not None:
            _round_weights_(quantized, node, family.scale_axis, weight_bits)
        if family.reads_integers or node.op == "output":
            _round_operands_(quantized, node)
    quantized.recompile()
    return quantized


def round_activations(values: Tensor) -> Tensor:
    """Values on the grid of 8-bit integers that spans their range and holds zero exactly."""
    high = 2**ACTIVATION_BITS - 1
    with torch.no_grad():
        low, top = (limit.float() for limit in torch.aminmax(values))
        scale = ((top.clamp(min=0) - low.clamp(max=0)) / high).clamp(min=torch.finfo(torch.float32).tiny)
        zero = (-low.clamp(max=0) / scale).round().clamp(0, high).int()
    return torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, high)


def round_weights(weights: Tensor, axis: int, bits: int) -> Tensor:
    """Weights on a grid of integers, symmetric, with a scale for each index of `axis`."""
    high = 2 ** (bits - 1) - 1
    with torch.no_grad():
        others = [dim for dim in range(weights.ndim) if dim != axis]
        scales = (weights.abs().amax(others) / high).clamp(min=torch.finfo(torch.float32).tiny)
        zeros = torch.zeros_like(scales, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weights, scales, zeros, axis, -high, high)


def _round_weights_(quantized: GraphModule, node: Node, axis: int, bits: int) -> None:
    tensors = named_tensors(quantized)
    for stored in [operand for operand in node.all_input_nodes if operand.op == "get_attr"]:
        if tensors[str(stored.target)].ndim > 1:
            with quantized.graph.inserting_before(node):
                node.replace_input_with(stored, quantized.graph.call_function(round_weights, (stored, axis, bits)))


def _round_operands_(quantized: GraphModule, node: Node) -> None:
    """Round what the node reads, once for all its readers that come after."""
    for operand in node.all_input_nodes:
        if operand.op == "get_attr" or operand.target in (round_activations, round_weights) or not _is_float(operand):
            continue
        rounded = next((reader for reader in operand.users if reader.target is round_activations), None)
        if rounded is None:
            with quantized.graph.inserting_after(operand):
                rounded = quantized.graph.call_function(round_activations, (operand,))
        node.replace_input_with(operand, rounded)


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 0
