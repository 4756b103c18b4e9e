"""What the package knows of TFLite files."""

from __future__ import annotations

from collections.abc import Mapping

from edgeprune.core.latency.layers import PROBED
from edgeprune.exporting.formats import Exporter, Format, Inside
from edgeprune.exporting.parity.tolerances import TOLERANCES
from edgeprune.exporting.probing.probes import Layers
from edgeprune.exporting.tflite.metadata import embed_tflite, read_tflite
from edgeprune.exporting.tflite.micro import count_file
from edgeprune.exporting.tflite.run import describe_tflite, run_rows, run_tflite
from edgeprune.exporting.tflite.timeline import read_memory
from edgeprune.exporting.tflite.trace import trace_tflite
from edgeprune.exporting.tflite.weights import change_weights, read_layers, read_nodes, read_outputs


def load_exporters() -> Mapping[str, Exporter]:
    """What writes a file, by precision."""
    from edgeprune.exporting.tflite.exporters import EXPORTERS

    return EXPORTERS


def build_probe(layers: Layers) -> bytes:
    """The content of a model of these layers."""
    from edgeprune.exporting.tflite.probe_operators import build_tflite_operator
    from edgeprune.exporting.tflite.probes import build_tflite_probe

    return build_tflite_operator(*layers[0]) if layers[0][0].op in PROBED else build_tflite_probe(layers)


FORMAT = Format(
    name="tflite",
    tools=("edgeprune", "torch", "litert-torch", "litert-converter", "ai-edge-quantizer"),
    load_exporters=load_exporters,
    run=run_tflite,
    describe=describe_tflite,
    embed=embed_tflite,
    read=read_tflite,
    build_probe=build_probe,
    probe_axes=(1, 2),  # LiteRT runs convolutions of three axes in float alone, none in XNNPACK
    kernels=TOLERANCES["xnnpack"],
    inside=Inside(
        trace_tflite,
        run_rows,
        read_layers,
        read_nodes,
        read_outputs,
        change_weights,
        read_memory=read_memory,
        count_memory=count_file,
    ),
)
