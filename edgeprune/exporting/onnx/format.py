"""What the package knows of ONNX files."""

from __future__ import annotations

from collections.abc import Mapping

from edgeprune.core.latency.layers import PROBED
from edgeprune.exporting.formats import Exporter, Format, Inside
from edgeprune.exporting.onnx.contained import contain
from edgeprune.exporting.onnx.layers import read_onnx_layers
from edgeprune.exporting.onnx.metadata import embed_onnx, read_onnx
from edgeprune.exporting.onnx.nodes import sort_nodes
from edgeprune.exporting.onnx.run import describe_onnx, run_onnx, run_rows
from edgeprune.exporting.onnx.trace import trace_onnx
from edgeprune.exporting.onnx.weights import change_weights, read_layers, read_nodes, read_outputs
from edgeprune.exporting.parity.tolerances import TOLERANCES
from edgeprune.exporting.probing.probes import Layers


def load_exporters() -> Mapping[str, Exporter]:
    """What writes a file, by precision."""
    from edgeprune.exporting.onnx.exporters import EXPORTERS

    return EXPORTERS


def build_probe(layers: Layers) -> bytes:
    """The content of a model of these layers."""
    from edgeprune.exporting.onnx.probe_operators import build_onnx_operator
    from edgeprune.exporting.onnx.probes import build_onnx_probe

    return build_onnx_operator(*layers[0]) if layers[0][0].op in PROBED else build_onnx_probe(layers)


FORMAT = Format(
    name="onnx",
    tools=("edgeprune", "torch", "onnx", "onnxscript", "onnxruntime"),
    load_exporters=load_exporters,
    run=run_onnx,
    describe=describe_onnx,
    embed=embed_onnx,
    read=read_onnx,
    build_probe=build_probe,
    probe_axes=(1, 2, 3),
    kernels=TOLERANCES["kernels"],
    saturates=True,
    inside=Inside(
        trace_onnx, run_rows, read_layers, read_nodes, read_outputs, change_weights, read_onnx_layers, sort_nodes
    ),
    contain=contain,
)
