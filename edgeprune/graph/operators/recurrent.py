"""Tables that are looked up, and recurrent cells."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.fx import Node

from edgeprune.graph.labels import Dim, join
from edgeprune.graph.nodes import arg
from edgeprune.graph.operators.record import OperatorFamily, aten
from edgeprune.graph.walk import Value, Walk, freeze_all, untracked


def embedding(node: Node, walk: Walk) -> Value:
    """One row of the table for each index."""
    table, index = walk.dims(arg(node, 0)), walk.sizes(arg(node, 1))
    walk.use(arg(node, 0), 1, "out")
    walk.freeze(node, table[:1])
    return (*(None,) * len(index), table[1])


def recurrent(node: Node, walk: Walk) -> Value:
    """LSTM and GRU: the hidden channels run through every gate of both weights, and back into the cell."""
    state, params = arg(node, 1), arg(node, 2)
    has_biases, layers, bidirectional = arg(node, 3), arg(node, 4), arg(node, 7)
    per_cell = 4 if has_biases else 2
    if not isinstance(params, (list, tuple)) or len(params) != per_cell * int(layers) * (1 + bool(bidirectional)):
        return freeze_all(node, walk)
    states = list(state) if isinstance(state, (list, tuple)) else [state]
    dims = walk.dims(arg(node, 0))
    feed, hidden = dims[-1], None
    for layer in range(int(layers)):
        outs = []
        for direction in range(1 + bool(bidirectional)):
            start = per_cell * (layer * (1 + bool(bidirectional)) + direction)
            outs.append(_cell(node, walk, feed, params[start : start + per_cell]))
        feed = outs[0] if len(outs) == 1 else join(outs, [walk.sizes(params[1])[1]] * len(outs))
        for out in outs:
            hidden = out if hidden is None else hidden
            walk.tie(node, hidden, out)
    for initial_state in states:
        walk.tie(node, walk.dims(initial_state)[-1], hidden)
    last = (None,) * (len(dims) - 1) + (feed,)
    step = (None,) * (len(dims) - 1) + (hidden,)
    outputs = untracked(node)
    return [last, *[step] * (len(outputs) - 1)] if isinstance(outputs, list) else outputs


def _cell(node: Node, walk: Walk, feed: Dim, params: Any) -> Dim:
    """Tie the parameters of one cell; gives its hidden channels."""
    to_gates, to_hidden = walk.dims(params[0]), walk.dims(params[1])
    hidden = to_hidden[1]
    gates = walk.sizes(params[1])[0] // walk.sizes(params[1])[1]
    repeated = None if hidden is None else np.tile(hidden, gates)
    walk.tie(node, feed, to_gates[1])
    for param in params:
        walk.tie(node, walk.dims(param)[0], repeated)
    for param, dim, role in ((params[0], 0, "out"), (params[1], 0, "out"), (params[0], 1, "in"), (params[1], 1, "in")):
        walk.use(param, dim, role)
    return hidden


FAMILIES = (
    OperatorFamily(aten("embedding"), embedding),
    OperatorFamily(aten("lstm gru"), recurrent, places={"training": 6}, reads_integers=True, scale_axis=0),
    OperatorFamily(aten("rnn_tanh rnn_relu"), recurrent),
)
