"""Which layer of a float file goes wrong first against the program that it was made from, told by values alone.

Converters rename, fuse and reorder, so nothing but its values says which tensor of a file is a layer's output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from edgeprune.core.quantizing.sqnr import SQNR_LIMIT_DB, measure_sqnr_db
from edgeprune.errors import ExportError
from edgeprune.exporting.parity.bisect import Bisection, LayerParity, spread_of
from edgeprune.exporting.parity.causes import find_cause
from edgeprune.exporting.parity.layer_outputs import LayerOutput, trace_file

SAME_DB = 70.0
"""Sorted values of one layer in two float32 runtimes agree to 100 dB and more; those of two layers never to 60 dB."""


@dataclass(frozen=True)
class _Match:
    """The tensor of the file whose values, in any order, come closest to a layer's."""

    closest: LayerOutput | None
    sqnr_db: float


def bisect_program(program: GraphModule, path: Path, inputs: np.ndarray) -> Bisection:
    """Compare a float32 file with the program (in eval mode) that it was made from, on `inputs` `[N, ...]`.

    A layer is right where the file holds its values in some order of axes, or those of a layer that is computed from
    it (it was fused then). The result has the layers that are found, and the first with which nothing in the file
    agrees.

    Raises:
        ExportError: the file or the program does not run on these inputs.
    """
    outputs = _trace_program(program, inputs)
    candidates = list(trace_file(path, inputs).values())
    matches = {node: _match(output, candidates) for node, output in outputs.items()}
    right = _mark_right(outputs, matches)
    layers = [_row(node, outputs[node], match) for node, match in matches.items() if match.sqnr_db >= SAME_DB]
    wrong = [node for node in outputs if node not in right]
    if wrong:
        layers.append(_row(wrong[0], outputs[wrong[0]], matches[wrong[0]]))
    return Bisection(tuple(layers), SAME_DB)


def _trace_program(program: GraphModule, inputs: np.ndarray) -> dict[Node, np.ndarray]:
    """Float outputs `[N, ...]` of every operator, row by row, in order."""
    outputs: dict[Node, list[np.ndarray]] = {}

    class Recorder(Interpreter):
        def run_node(self, n: Node) -> Any:
            value = super().run_node(n)
            if n.op == "call_function" and isinstance(value, Tensor) and value.is_floating_point() and value.ndim:
                outputs.setdefault(n, []).append(value.numpy(force=True).copy())
            return value

    try:
        with torch.no_grad():
            for row in torch.as_tensor(inputs):
                Recorder(program).run(row[None])
    except Exception as exc:
        raise ExportError(f"model: fails on an input of shape {[1, *inputs.shape[1:]]}: {exc}") from exc
    return {node: np.concatenate([np.atleast_1d(output) for output in rows]) for node, rows in outputs.items()}


def _match(output: np.ndarray, candidates: Sequence[LayerOutput]) -> _Match:
    best, values = _Match(None, -SQNR_LIMIT_DB), np.sort(output, axis=None)
    for candidate in candidates:
        if candidate.output.size == output.size:
            sqnr_db = measure_sqnr_db(values, np.sort(candidate.output, axis=None))
            if sqnr_db > best.sqnr_db or best.closest is None:
                best = _Match(candidate, sqnr_db)
    return best


def _mark_right(outputs: dict[Node, np.ndarray], matches: dict[Node, _Match]) -> set[Node]:
    """Nodes that the file holds, and those that such a node is computed from."""
    right: set[Node] = set()
    for node in reversed(list(next(iter(outputs)).graph.nodes)):
        matched = node in matches and matches[node].sqnr_db >= SAME_DB
        if matched or any(user in right for user in node.users):
            right.add(node)
    return right


def _row(node: Node, output: np.ndarray, match: _Match) -> LayerParity:
    closest = output if match.closest is None else match.closest.output
    cause = ""
    if match.sqnr_db < SAME_DB:
        cause = "no tensor of the file has as many values" if match.closest is None else _explain(output, match.closest)
    operator = str(node.target).removeprefix("aten.").partition(".")[0]
    return LayerParity(_layer_of(node), operator, match.sqnr_db, spread_of(output), spread_of(closest), cause)


def _explain(reference: np.ndarray, closest: LayerOutput) -> str:
    output = closest.output
    if output.shape != reference.shape and output.ndim == reference.ndim:
        output = np.moveaxis(output, -1, 1)  # TFLite holds channels last
    what = find_cause(reference, output, first_axis=1)
    return f"the closest in the file is {closest.layer} ({closest.operator}): {what}"


def _layer_of(node: Node) -> str:
    """The module whose weight the node reads, or the node's own name."""
    stored = [str(source.target) for source in node.all_input_nodes if source.op == "get_attr"]
    return stored[0].rpartition(".")[0] or stored[0] if stored else node.name
