"""A copy of an ONNX graph in which only what hangs on the data is computed; all else is literals and weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from edgeprune.errors import RecipeError
from edgeprune.recipes.onnx_literals.literals import Array, Known, rewrite_node
from edgeprune.recipes.onnx_literals.operators import DOMAIN, STANDARD

Runner = Callable[[dict[str, Array], Sequence[str] | None], list[Array]]
"""Feeds and names to values, the graph's outputs where no names are given."""
OPSET = 17
"""The newest that onnx2torch knows. What later ones changed beyond types is written as literals here."""
RANDOM = ("Random", "Bernoulli", "Multinomial", "Dropout")
DETECTION = {"NonMaxSuppression", "RoiAlign"}


def lower(network: Any, run: Runner, feeds: Mapping[str, Sequence[Array]], batch: int) -> Any:
    """A copy of the network that onnx2torch can convert to a module with literal sizes and an open batch.

    `feeds` are the inputs at each batch to try; `batch` is the one that the file fixes, or 0.

    Raises:
        RecipeError: an operator that nobody converts, or sizes that hang on data.
    """
    _refuse_control_flow(network)
    known = _evaluate(network, run, feeds, batch)
    lowered = _without_known(network, known, {name: values[0].shape for name, values in feeds.items()})
    _fuse_biases_(lowered.graph, known)
    for place, node in enumerate(lowered.graph.node):
        rewritten = rewrite_node(node, known)
        if rewritten is not None:
            lowered.graph.node[place].CopyFrom(rewritten)
    _refuse_missing(lowered)
    return lowered


def _refuse_control_flow(network: Any) -> None:
    with_graphs = [node for node in network.graph.node if any(attribute.HasField("g") for attribute in node.attribute)]
    if with_graphs:
        operators = ", ".join(sorted({node.op_type for node in with_graphs}))
        raise RecipeError(f"control flow ({operators}); export the network without it")


def _evaluate(network: Any, run: Runner, feeds: Mapping[str, Sequence[Array]], batch: int) -> Known:
    """Compute, at each batch, what hangs on sizes alone and is read by what hangs on the data."""
    from onnx.numpy_helper import to_array

    stored = {tensor.name for tensor in network.graph.initializer}
    constants = {name for node in network.graph.node if node.op_type == "Constant" for name in node.output}
    names, wanted = _find_known(network, stored)
    values: dict[str, Sequence[Array]] = {tensor.name: (to_array(tensor),) for tensor in network.graph.initializer}
    computed = [name for name in wanted if name not in values]
    (source, examples), *_ = feeds.items()
    runs = [run({source: example}, computed) for example in examples] if computed else []
    values |= {name: [outputs[place] for outputs in runs] for place, name in enumerate(computed)}
    return Known(dict.fromkeys(names, ()) | values, frozenset(stored | constants), batch)


def _find_known(network: Any, stored: Collection[str]) -> tuple[set[str], list[str]]:
    """All names that do not hang on the data, and those of them that are read by a node which does."""
    names, wanted = set(stored), list[str]()
    for node in network.graph.node:
        if _hangs_on_sizes(node, names):
            names |= set(node.output)
        else:
            wanted += [name for name in node.input if name in names]
    return names, list(dict.fromkeys(wanted))


def _hangs_on_sizes(node: Any, known: set[str]) -> bool:
    if node.op_type in ("Shape", "Size"):
        return True
    return not node.op_type.startswith(RANDOM) and all(name in known for name in node.input if name)


def _without_known(network: Any, known: Known, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """The network without what is known, at the given sizes and with an open batch, its shapes inferred."""
    from onnx.shape_inference import infer_shapes

    lowered = type(network)()
    lowered.CopyFrom(network)
    nodes = [node for node in network.graph.node if not all(name in known.values for name in node.output)]
    _replace_nodes_(lowered.graph, nodes, _weights(nodes, known))
    _open_batch_(lowered.graph, shapes)
    _declare_domains_(lowered)
    return infer_shapes(lowered)


def _weights(nodes: Sequence[Any], known: Known) -> dict[str, Array]:
    """What the nodes read that is the same at every batch, and the shapes that they reshape to, their batch open."""
    weights: dict[str, Array] = {}
    for node in nodes:
        fixed = {name: known.fixed(name) for name in node.input if name in known.values}
        if node.op_type == "Reshape" and node.input[1] in fixed and fixed[node.input[1]] is None:
            fixed[node.input[1]] = np.asarray(known.shape(node), np.int64)
        weights |= {name: value for name, value in fixed.items() if value is not None}
    return weights


def _replace_nodes_(graph: Any, nodes: Sequence[Any], weights: Mapping[str, Array]) -> None:
    from onnx.numpy_helper import from_array

    for field in (graph.node, graph.initializer, graph.value_info):
        del field[:]
    graph.node.extend(nodes)
    graph.initializer.extend(from_array(value, name) for name, value in weights.items())


def _open_batch_(graph: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Inputs of the given shapes with an open batch, no others, and outputs whose shapes are to be inferred."""
    for unused in [tensor for tensor in graph.input if tensor.name not in shapes]:
        graph.input.remove(unused)
    for tensor in graph.input:
        for place, size in enumerate(shapes[tensor.name]):
            tensor.type.tensor_type.shape.dim[place].CopyFrom(_dimension(size, place))
    for tensor in graph.output:
        tensor.type.tensor_type.ClearField("shape")


def _declare_domains_(network: Any) -> None:
    """ONNX's operators in the newest version that onnx2torch knows, and ours beside the others."""
    from onnx.helper import make_operatorsetid

    declared = list(network.opset_import)
    opset = min(OPSET, max(domain.version for domain in declared if domain.domain in STANDARD))
    others = [domain for domain in declared if domain.domain not in STANDARD]
    del network.opset_import[:]
    network.opset_import.extend([make_operatorsetid("", opset), make_operatorsetid(DOMAIN, 1), *others])


def _dimension(size: int, place: int) -> Any:
    from onnx import TensorShapeProto

    return TensorShapeProto.Dimension(dim_value=size) if place else TensorShapeProto.Dimension(dim_param="batch")


def _fuse_biases_(graph: Any, known: Known) -> None:
    """Give what is added to a convolution or product without bias to it as its bias."""
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(tensor.name for tensor in graph.output)
    makers = {node.output[0]: node for node in graph.node}
    for add in [node for node in graph.node if node.op_type == "Add"]:
        for source, summand in (tuple(add.input), tuple(add.input)[::-1]):
            layer, bias = makers.get(source), known.fixed(summand)
            if layer is None or bias is None or readers[source] != 1 or not _takes_bias(layer, bias, known):
                continue
            _fuse_bias_(graph, layer, add, bias)
            makers[layer.output[0]] = layer
            break


def _fuse_bias_(graph: Any, layer: Any, add: Any, bias: Array) -> None:
    """Give a layer the bias that an addition adds, and the addition's place."""
    from onnx.numpy_helper import from_array

    graph.initializer.append(from_array(np.ascontiguousarray(bias.reshape(-1)), f"{add.output[0]}/bias"))
    layer.input.append(graph.initializer[-1].name)
    layer.output[0] = add.output[0]
    graph.node.remove(add)


def _takes_bias(layer: Any, bias: Array, known: Known) -> bool:
    """Whether the layer has no bias yet, and the summand is one number for each of its output channels."""
    weight = known.fixed(layer.input[1]) if len(layer.input) == 2 else None
    if weight is None or weight.ndim < 2:
        return False
    match layer.op_type:
        case "Conv":
            shape = (weight.shape[0], *(1,) * (weight.ndim - 2))
        case "ConvTranspose":
            groups = next((attribute.i for attribute in layer.attribute if attribute.name == "group"), 1)
            shape = (weight.shape[1] * groups, *(1,) * (weight.ndim - 2))
        case "MatMul" if weight.ndim == 2:
            shape = (weight.shape[1],)
        case _:
            return False
    return bias.size == shape[0] and bias.shape[-len(shape) :] == shape


def _refuse_missing(lowered: Any) -> None:
    versions = {domain.domain: domain.version for domain in lowered.opset_import}
    missing = {
        f"{node.op_type} (cut the post-processing off the file)"
        for node in lowered.graph.node
        if node.op_type in DETECTION
    }
    missing |= {
        f"{node.domain}.{node.op_type}".lstrip(".") for node in lowered.graph.node if not _is_converted(node, versions)
    }
    if missing:
        raise RecipeError(f"no conversion of {', '.join(sorted(missing))}; export the network without")


def _is_converted(node: Any, versions: Mapping[str, int]) -> bool:
    from onnx2torch.node_converters import get_converter

    try:
        get_converter(domain=node.domain, operation_type=node.op_type, version=versions.get(node.domain, 1))
    except NotImplementedError:
        return False
    return True
