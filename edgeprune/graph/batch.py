"""A program that was exported elsewhere, put into eval mode and, if its batch is fixed, opened for any."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgeprune.core.latency.steps import ADD
from edgeprune.errors import GraphError
from edgeprune.graph.nodes import sizes_of
from edgeprune.graph.operators.build import SIZE
from edgeprune.graph.operators.table import find_operator
from edgeprune.graph.trace import (
    copy_program,
    export_graph,
    graph_of,
    is_dynamic,
    set_training_,
)

COUNTER = "num_batches_tracked"
"""A buffer of batch norm, which a program exported in training mode counts up."""
TOLERANCE, ROUNDINGS = 1e-4, 16
"""Largest difference relative to the largest output; in shorter floats, in units of their last place."""
WAY_OUT = (
    "export it with an open batch: torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},)) with "
    "two inputs or more in x"
)


def open_batch(program: GraphModule) -> GraphModule:
    """A program of one input, in eval mode, that takes any batch; compared with the one given on two different inputs.

    The given one is put into eval mode, and loses its checks of sizes and its counts of batches.

    Raises:
        GraphError: it has other inputs, its batch is written into it in a way that cannot be undone, or opened it
            computes something else; says what to do.
    """
    inputs = program.graph.find_nodes(op="placeholder")
    if len(inputs) != 1 or not isinstance(inputs[0].meta.get("val"), Tensor):
        raise GraphError(f"the exported program takes {len(inputs)} inputs; expected one tensor, the batch first")
    _settle_(program)
    if is_dynamic(program):
        return program
    example = inputs[0].meta["val"]
    opened = copy_program(program)
    _use_sizes_(opened, int(example.shape[0]))
    rows = [_draw(example, seed) for seed in (0, 1)]
    with torch.no_grad():
        expected = [program(row) for row in rows]
    if not all(isinstance(output, Tensor) and output.is_floating_point() for output in expected):
        raise GraphError(f"the exported program gives {type(expected[0]).__name__}; expected one tensor of floats")
    refusal = f"the program was exported for a batch of {example.shape[0]}; {WAY_OUT}"
    try:
        opened = graph_of(export_graph(opened, rows[0]))
        _settle_(opened)
        with torch.no_grad():
            actual = opened(torch.cat(rows))
    except (GraphError, RuntimeError, ValueError) as exc:
        raise GraphError(refusal) from exc
    if not is_dynamic(opened) or not _agree(torch.cat(expected), actual):
        raise GraphError(refusal)
    return opened


def draw_example(program: GraphModule) -> Tensor:
    """An input of the shape that a program of one input was traced with, from a fixed seed."""
    (placeholder,) = program.graph.find_nodes(op="placeholder")
    return _draw(placeholder.meta["val"], 0)


def _settle_(program: GraphModule) -> None:
    """Put a program into eval mode, and take out what it does beside computing its output."""
    program.validate_inputs = False  # type: ignore[assignment]  # sizes are checked where batches are read
    for node in list(program.graph.nodes):
        is_guard = node.op == "call_module" and node.target == "_guards_fn"
        counts = find_operator(node).kind == ADD and str(getattr(node.args[0], "target", "")).endswith(COUNTER)
        if (is_guard or counts) and not node.users:
            program.graph.erase_node(node)
    program.delete_all_unused_submodules()
    set_training_(program, False)


def _use_sizes_(program: GraphModule, batch: int) -> None:
    """Where a view repeats the fixed batch of what it views, let it ask for its size."""
    computed = set(program.graph.find_nodes(op="placeholder"))
    for node in list(program.graph.nodes):
        computed |= {node} if computed.intersection(node.all_input_nodes) else set()
        source = node.args[0] if node.args else None
        if "sizes" not in find_operator(node).places or not isinstance(source, Node) or source not in computed:
            continue
        sizes = list(node.args[1])
        if sizes and sizes[0] == batch and sizes_of(source.meta.get("val"))[:1] == (batch,):
            with program.graph.inserting_before(node):
                size = program.graph.call_function(SIZE, (source, 0))
            node.args = (source, [size, *sizes[1:]], *node.args[2:])
    program.recompile()


def _draw(example: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    sizes = sizes_of(example)
    if example.is_floating_point():
        return torch.randn(sizes, generator=generator, dtype=example.dtype)
    return torch.randint(0, 2, sizes, generator=generator).to(example.dtype)


def _agree(expected: Tensor, actual: Tensor) -> bool:
    if expected.shape != actual.shape:
        return False
    scale = float(expected.abs().max()) or 1.0
    tolerance = max(TOLERANCE, ROUNDINGS * torch.finfo(expected.dtype).eps)
    return float((expected - actual).abs().max()) <= tolerance * scale
