"""From a PyTorch module to a graph of ATen operators, and the few things that are done to such a graph as a whole."""

from __future__ import annotations

import copy
import io
import logging
import re
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule, Node

from edgeprune.core.quantizing import soundness
from edgeprune.errors import GraphError
from edgeprune.graph.nodes import LEAST_BATCH
from edgeprune.graph.operators.build import plain_form
from edgeprune.graph.operators.table import find_operator

Example = Tensor | tuple[Tensor, ...]

NOT_THE_USERS = (str(Path(torch.__file__).parent), str(Path(__file__).parent.parent))
"""Folders of code that is not the model's."""


def trace_model(model: nn.Module, example: Example) -> GraphModule:
    """The graph of `model` in eval mode, with its high-level operators, parameter names and any batch size.

    `example` is one input or a tuple of inputs, batch first. A model whose batch cannot be left open is
    traced at the example's batch; `is_dynamic` tells.

    Raises:
        GraphError: `torch.export` cannot trace it.
    """
    was_training = model.training
    if not isinstance(model, GraphModule):
        model.eval()
    try:
        program = graph_of(export_graph(model, example))
    finally:
        if not isinstance(model, GraphModule):
            model.train(was_training)
    return program


def reexport(program: GraphModule, example: Example) -> ExportedProgram:
    """The program at the example's own batch, every size a constant, as deployment formats want it.

    Raises:
        GraphError: `torch.export` cannot trace it.
    """
    try:
        with _quiet():
            return torch.export.export(program, _inputs(example, least_batch=1))
    except Exception as exc:
        raise GraphError(f"re-export of the graph failed: {_first_line(exc)}") from exc


def set_training_(program: GraphModule, training: bool) -> None:
    """Flip the training flags of batch norm and dropout nodes, as `model.train(training)` would."""
    for node in program.graph.nodes:
        place = find_operator(node).places.get("training")
        if place is not None:
            node.update_arg(place, training)
    program.recompile()


def make_switchable(program: GraphModule) -> GraphModule:
    """A copy whose `train()` and `eval()` work as those of any module, which torch refuses of exported graphs."""
    switchable = copy_program(program)

    def train(self: GraphModule, mode: bool = True) -> GraphModule:
        set_training_(self, mode)
        self.training = mode
        return self

    switchable.train = MethodType(train, switchable)  # type: ignore[method-assign]
    switchable.eval = MethodType(partial(train, mode=False), switchable)  # type: ignore[method-assign]
    return switchable


def copy_program(program: GraphModule, replacements: dict[int, object] | None = None) -> GraphModule:
    """A copy that shares no tensor; `replacements` maps the identity of a tensor to what the copy has in its place."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch copies its own tree specs in a way that it deprecates
        return copy.deepcopy(program, replacements or {})


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer under each of its names."""
    parameters, buffers = model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    return dict(parameters) | dict(buffers)


def is_sound(name: str, value: Tensor) -> bool:
    """Whether a stored tensor holds no NaN, and infinity only where it may be meant."""
    return soundness.is_sound(
        name, isinstance(value, nn.Parameter), bool(value.isnan().any()), bool(value.isinf().any())
    )


def is_dynamic(program: GraphModule) -> bool:
    """Whether the program takes any batch size."""
    values = [node.meta["val"] for node in program.graph.find_nodes(op="placeholder")]
    batches: list[Any] = [value.shape[0] for value in values if isinstance(value, Tensor) and value.dim()]
    return any(isinstance(batch, torch.SymInt) and not batch.node.expr.is_number for batch in batches)


def make_functional_(program: GraphModule) -> None:
    """Replace in-place operators by their plain forms where nobody else sees the memory that they write to."""
    changed = False
    for node in list(program.graph.nodes):
        written = node.args[0] if node.args and isinstance(node.args[0], Node) else None
        plain = plain_form(node.target)
        if plain is None or written is None or _is_seen_elsewhere(written, node):
            continue
        node.target = plain
        for user in [reader for reader in written.users if node < reader]:
            user.replace_input_with(written, node)
        changed = True
    if changed:
        program.recompile()


def inline_regions_(program: GraphModule) -> None:
    """Replace regions of switched-off autocast or gradient, which are graphs of their own, by their operators."""
    places = {node: find_operator(node).places.get("region") for node in program.graph.nodes}
    regions = {node: place for node, place in places.items() if place is not None}
    for node, place in regions.items():
        inner = node.args[place]
        body = program.get_submodule(str(inner.target)) if isinstance(inner, Node) else None
        if not isinstance(body, GraphModule):
            continue
        operands = dict(zip(body.graph.find_nodes(op="placeholder"), node.args[place + 1 :], strict=True))
        with program.graph.inserting_before(node):
            results = program.graph.graph_copy(body.graph, operands)
        results = results if isinstance(results, (list, tuple)) else (results,)
        for user in list(node.users):
            user.replace_all_uses_with(results[int(user.args[1])])
            program.graph.erase_node(user)
        program.graph.erase_node(node)
    if regions:
        program.graph.eliminate_dead_code()
        program.delete_all_unused_submodules()
        program.recompile()


def _is_seen_elsewhere(written: Node, writer: Node) -> bool:
    """Whether memory that `writer` writes is an input's or a parameter's, or is read through a view afterwards."""
    root = written
    while find_operator(root).may_view and isinstance(root.args[0], Node):
        root = root.args[0]
    if root.op != "call_function":
        return True
    views, visited = [root], {root}
    while views:
        view = views.pop()
        if view is not written and any(writer < user for user in view.users):
            return True
        fresh = {user for user in view.users if find_operator(user).may_view and user < writer} - visited
        visited |= fresh
        views += fresh
    return False


def find_written(program: GraphModule) -> set[Node]:
    """Nodes that share memory which an operator writes to."""
    shared: set[Node] = set()
    for writer in filter(_writes, program.graph.nodes):
        root = writer
        while (find_operator(root).may_view or _writes(root)) and isinstance(root.args[0], Node):
            root = root.args[0]
        waiting = [root]
        while waiting:
            node = waiting.pop()
            shared.add(node)
            sharers = [
                user for user in node.users if find_operator(user).may_view or (_writes(user) and user.args[0] is node)
            ]
            waiting += [user for user in sharers if user not in shared]
    return shared


def _writes(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable and bool(node.args)


def export_graph(model: nn.Module, example: Example) -> ExportedProgram:
    """`torch.export` with an open batch, or with the example's where that is impossible.

    Raises:
        GraphError: it cannot be traced.
    """
    inputs = _inputs(example)
    shapes = tuple({0: Dim.AUTO} if value.dim() else None for value in inputs)
    with _quiet():
        try:
            return torch.export.export(model, inputs, dynamic_shapes=(shapes,) if _is_variadic(model) else shapes)
        except Exception:
            try:
                return torch.export.export(model, inputs)
            except Exception as exc:
                raise GraphError(f"{type(model).__name__}: torch.export cannot trace it: {_explain(exc)}") from exc


REMEDIES = {
    r"data.dependent|\bu\d+\b|unbacked": "its forward decides or sizes something by the values of a tensor; use "
    "torch.where, masks and fixed sizes in place of if, loops and indices over values",
    r"\.numpy\(\)|\bnumpy\b": "its forward leaves torch for numpy; use torch's own functions there",
    r"ScriptModule": "give the Python module that was scripted, or a .pt2 of it",
    r"registered as buffers|assigned during export": "its forward keeps a tensor on the module; leave that out, or "
    "register it as a buffer",
    r"Dynamo|dynamo": "give the module as it was before torch.compile",
    r"(?i)fake ?tensor|meta tensor": "its forward calls what torch cannot look into (an extension, or a library of its "
    "own); use torch's own operators there",
}
"""What torch.export says, as a pattern, to what can be done about it."""


def _explain(exc: Exception) -> str:
    """What torch says, the line of the model's code where it happened, and what can be done."""
    text = str(exc)
    remedy = next((remedy for pattern, remedy in REMEDIES.items() if re.search(pattern, text)), "")
    places = [
        f"{frame.filename}:{frame.lineno}"
        for frame in traceback.extract_tb(exc.__traceback__)
        if Path(frame.filename).exists() and not frame.filename.startswith(NOT_THE_USERS)
    ]
    place = f" (at {places[-1]})" if places else ""
    return f"{_first_line(exc)}{place}" + (f"; {remedy}" if remedy else "")


def _is_variadic(model: nn.Module) -> bool:
    code = getattr(model.forward, "__code__", None)
    return code is not None and code.co_argcount <= 1


def graph_of(exported: ExportedProgram) -> GraphModule:
    """The runnable graph of an exported program, its parameters under their own names."""
    program = exported.module(check_guards=False)
    if not isinstance(program, GraphModule):
        raise GraphError(f"torch.export gave a {type(program).__name__} instead of a graph")
    inline_regions_(program)
    make_functional_(program)
    return program


def _inputs(example: Example, least_batch: int = LEAST_BATCH) -> tuple[Tensor, ...]:
    inputs = (example,) if isinstance(example, Tensor) else tuple(example)
    if any(value.dim() and 0 < value.shape[0] < least_batch for value in inputs):
        inputs = tuple(torch.cat([value] * least_batch) if value.dim() else value for value in inputs)
    return inputs


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep off the terminal what torch.export logs and warns of, and the graph that it prints of a failed attempt."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _first_line(exc: Exception) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0]
