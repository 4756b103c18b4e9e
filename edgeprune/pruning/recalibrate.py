"""Batch-norm statistics measured anew on calibration data, and a model's figure on evaluation data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from edgeprune.errors import EdgepruneError
from edgeprune.graph.operators.table import find_operator
from edgeprune.graph.trace import copy_program
from edgeprune.pruning.accelerator import bring, device_of
from edgeprune.pruning.evidence import Batch, Loss, finite_loss
from edgeprune.pruning.finite import check_tensors

LEAST = 2
"""Inputs whose statistics have a variance, whatever the layer."""


class _Statistics(Interpreter):
    """Runs a graph with the statistics of the batch at hand, and averages them into the stored ones."""

    share = 1.0

    def run_node(self, n: Node) -> Any:
        if find_operator(n).is_batch_norm and n.args[3] is not None:
            (inputs, weight, bias, mean, variance, _, _, epsilon, _), _ = self.fetch_args_kwargs_from_env(n)
            return torch.batch_norm(inputs, weight, bias, mean, variance, True, self.share, epsilon, False)
        return super().run_node(n)


def recalibrate_(program: GraphModule, batches: Iterable[tuple[Tensor, Tensor | None]]) -> None:
    """Replace batch norm's running statistics by their plain average over the batches; weights stay as they are.

    Raises:
        EdgepruneError: a statistic is not finite afterwards.
    """
    if not any(find_operator(node).is_batch_norm for node in program.graph.nodes):
        return
    interpreter = _Statistics(program)
    device = device_of(program)
    with torch.no_grad():
        for count, (inputs, _) in enumerate(batches, 1):
            interpreter.share = 1 / count
            interpreter.run(channels_last(bring(inputs, device)))
    check_tensors(program, "statistics of calibration_data()", "check these data and the model's weights")


def mean_loss(program: GraphModule, batches: Iterable[Batch], loss: Loss) -> float:
    """Mean loss over all inputs of the batches.

    Raises:
        EdgepruneError: not finite.
    """
    total, count, device = 0.0, 0, device_of(program)
    with torch.inference_mode():
        for inputs, targets in ((bring(inputs, device), bring(targets, device)) for inputs, targets in batches):
            batch_loss = loss(program(channels_last(inputs)), targets)
            total += float(finite_loss(batch_loss, program, inputs)) * len(inputs)
            count += len(inputs)
    return total / count


def recalibrate_if_better(program: GraphModule, batches: Sequence[Batch], loss: Loss) -> tuple[GraphModule, bool]:
    """A program with statistics from calibration data, if these serve inputs better that they were not taken from.

    Training keeps statistics of augmented inputs, which padding and distortions shift away from those that the
    deployed net gets. Half of the inputs give the statistics, the other half decides; then all give them. Tells
    whether anything was changed: nothing is where there are too few to halve.

    Raises:
        EdgepruneError: a loss or a statistic is not finite.
    """
    large = [pair for pair in batches if len(pair[0]) >= 2 * LEAST]
    if not large:
        return program, False
    first, second = (
        [(inputs.tensor_split(2)[half], targets.tensor_split(2)[half]) for inputs, targets in large] for half in (0, 1)
    )
    trial = copy_program(program)
    recalibrate_(trial, first)
    if not mean_loss(trial, second, loss) < mean_loss(program, second, loss):
        return program, False
    recalibrate_(trial, batches)
    return trial, True


def evaluate(
    program: nn.Module,
    data: Iterable[tuple[Tensor, Tensor | None]],
    metric: Callable[[np.ndarray, np.ndarray], float],
) -> float:
    """The metric of a model, in eval mode as it comes, over all batches together.

    Raises:
        EdgepruneError: a batch has no targets.
    """
    outputs, expected, device = [], [], device_of(program)
    with torch.inference_mode():
        for inputs, targets in data:
            if targets is None:
                raise EdgepruneError("evaluation needs batches of (inputs, targets); these are inputs only")
            outputs.append(program(channels_last(bring(inputs, device))).float().cpu().numpy())
            expected.append(targets.numpy())
    return float(metric(np.concatenate(outputs), np.concatenate(expected)))


def channels_last(inputs: Tensor) -> Tensor:
    """Images with channels as the last dimension in memory, which the CPU's convolutions prefer; others as they are."""
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs
