"""Re-fit the layers that read fewer channels than before, by least squares on calibration activations.

Source: He et al., "Channel Pruning for Accelerating Very Deep Neural Networks", 2017, and Luo et al., "ThiNet", 2017:
each layer in turn learns to give what it gave before the cut, from the inputs that the pruned net gives it now.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgeprune.errors import EdgepruneError
from edgeprune.graph.analysis import Analysis
from edgeprune.graph.groups import alive_mask
from edgeprune.graph.operators.table import find_operator
from edgeprune.graph.surgery import branches_cut
from edgeprune.pruning.evidence import Batch, layer_nodes, record, weight_of

RIDGE = 1e-2
"""Pull towards the weights that the cut has left, relative to the mean square of the inputs."""
POSITIONS = 10
"""Places of a feature map that are looked at for each input, as in He et al."""
MAX_INPUTS = 6144
"""Layers with more inputs than this for each output are left alone: the normal equations would not fit in memory."""
SEED = 0


def reconstruct_(
    pruned: GraphModule,
    original: GraphModule,
    analysis: Analysis,
    keep: Mapping[str, Sequence[int]],
    batches: Sequence[Batch],
) -> tuple[str, ...]:
    """Re-fit, in order, every layer of `pruned` whose inputs were cut; gives the names of the weights re-fitted.

    Inputs are cut where channels are missing, and changed after a branch that is gone.

    `pruned` is what `apply_plan` made of `original` by `keep`; both are in eval mode. Grouped and transposed
    convolutions, and layers that share their weight, stay as they are. Batch norm is
    *not* to be recalibrated afterwards: a fit has less variance than what it fits, and recalibration would scale it up
    again, errors included.

    Raises:
        EdgepruneError: activations are not finite.
    """
    original_nodes = {weight_of(node): node for node in layer_nodes(original)}
    alive = alive_mask(analysis, keep)
    changed = _downstream(original, {branch.add for branch in branches_cut(analysis, keep)})
    fitted = []
    for node in list(layer_nodes(pruned)):
        name = weight_of(node)
        labels = analysis.tensors[name][0] if name in analysis.tensors else None
        mask = None if labels is None else torch.from_numpy(alive[analysis.solution.atoms[labels]].all(axis=1))
        narrower = pruned.get_parameter(name).shape[1] < original.get_parameter(name).shape[1]
        if (narrower or original_nodes[name].name in changed) and _is_fit_for(node, pruned):
            _fit_(node, pruned, _targets(original_nodes[name], original, mask, batches), batches)
            fitted.append(name)
    return tuple(fitted)


def _downstream(program: GraphModule, sources: set[str]) -> set[str]:
    """Nodes that depend on one of `sources`."""
    names = set(sources)
    for node in program.graph.nodes:
        if any(source.name in names for source in node.all_input_nodes):
            names.add(node.name)
    return names


def _is_fit_for(node: Node, pruned: GraphModule) -> bool:
    """Whether a layer is of a kind that is re-fitted."""
    name = weight_of(node)
    weight = pruned.get_parameter(name)
    transposed, is_named_padding = find_operator(node).is_transposed, isinstance(_argument(node, 4, 0), str)
    plain = not transposed and _argument(node, 6, 1) == 1 and not is_named_padding
    alone = sum(weight_of(other) == name for other in layer_nodes(pruned)) == 1
    return plain and alone and weight[0].numel() <= MAX_INPUTS


def _argument(node: Node, place: int, default: Any) -> Any:
    return node.args[place] if len(node.args) > place else default


def _targets(node: Node, original: GraphModule, mask: Tensor | None, batches: Sequence[Batch]) -> Iterator[Tensor]:
    """What the layer gave in the original, at the outputs that are left, with channels last."""
    for inputs, _ in batches:
        value = record(original, inputs, [node])[node]
        value = value.movedim(1, -1) if find_operator(node).window_rank else value
        yield value if mask is None else value[..., mask]


def _fit_(node: Node, pruned: GraphModule, targets: Iterator[Tensor], batches: Sequence[Batch]) -> None:
    weight, bias = pruned.get_parameter(weight_of(node)), _bias(node, pruned)
    generator = torch.Generator().manual_seed(SEED)
    size = weight[0].numel()
    gram = torch.zeros(size + 1, size + 1, dtype=torch.float64)
    right = torch.zeros(size + 1, len(weight), dtype=torch.float64)
    source = node.args[0]
    if not isinstance(source, Node):
        return
    for (inputs, _), target in zip(batches, targets, strict=True):
        values = record(pruned, inputs, [source, node])
        outputs = values[node].movedim(1, -1) if find_operator(node).window_rank else values[node]
        places = _places(outputs, generator)
        rows = torch.nn.functional.pad(_patches(node, values[source], weight)[places].flatten(1), (0, 1), value=1.0)
        gram += rows.double().T @ rows.double()
        right += rows.double().T @ (target - outputs)[places].double()
    constant = bias if bias is not None else _norm_mean(node, pruned)
    change = _solve(gram, right, centred=constant is not None)
    if not bool(change.isfinite().all()):
        raise EdgepruneError(f"reconstruction: {weight_of(node)}: activations are not finite; check calibration_data()")
    with torch.no_grad():
        weight.add_(change[:-1].T.reshape(weight.shape).to(weight.dtype))
        if constant is not None:
            constant.add_(change[-1].to(constant.dtype), alpha=1 if bias is not None else -1)


def _solve(gram: Tensor, right: Tensor, centred: bool) -> Tensor:
    """The least change, in the ridge sense, that brings the outputs nearest to what they were; the last row is bias."""
    size = len(gram) - 1
    change = torch.zeros_like(right)
    used = size + 1 if centred else size
    ridge = torch.full((used,), RIDGE * float(gram.diagonal()[:size].mean()), dtype=gram.dtype)
    if centred:
        ridge[-1] = 0.0
    least = 1e-12 * float(gram.diagonal().max())
    change[:used] = torch.linalg.solve(gram[:used, :used] + torch.diag(ridge + least), right[:used])
    return change


def _bias(node: Node, pruned: GraphModule) -> Tensor | None:
    bias = _argument(node, 2, None)
    return pruned.get_parameter(str(bias.target)) if isinstance(bias, Node) and bias.op == "get_attr" else None


def _norm_mean(node: Node, pruned: GraphModule) -> Tensor | None:
    """The running mean of the batch norm that alone reads a layer: it can take a constant off the layer's outputs."""
    user = next(iter(node.users))
    mean = user.args[3] if len(node.users) == 1 and find_operator(user).is_batch_norm else None
    return pruned.get_buffer(str(mean.target)) if isinstance(mean, Node) and mean.op == "get_attr" else None


def _places(outputs: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Random places of each input's output (channels last), as indices of every dimension but the last."""
    count, spatial = len(outputs), outputs.shape[1:-1]
    positions = min(POSITIONS, spatial.numel())
    flat = torch.rand(count, spatial.numel(), generator=generator).topk(positions).indices.flatten()
    batch = torch.arange(count).repeat_interleave(positions)
    return (batch, *torch.unravel_index(flat, spatial)) if spatial else (batch,)


def _patches(node: Node, source: Tensor, weight: Tensor) -> Tensor:
    """For each place of the output, the inputs that it is computed from: `[N, *places, cin, *kernel]`, a view."""
    axes = find_operator(node).window_rank
    if axes == 0:
        return source
    stride, padding, dilation = (_spread(_argument(node, 3 + i, d), axes) for i, d in enumerate((1, 0, 1)))
    padded = torch.nn.functional.pad(source, [amount for width in reversed(padding) for amount in (width, width)])
    for axis, kernel in enumerate(weight.shape[2:]):
        reach = (kernel - 1) * dilation[axis] + 1
        padded = padded.unfold(2 + axis, reach, stride[axis])[..., :: dilation[axis]]
    return padded.movedim(1, 1 + axes)


def _spread(value: Any, axes: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values
