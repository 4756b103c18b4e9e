"""ONNX, float: torch's own exporter, without what makes its files differ from machine to machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeprune.exporting.checks import check_image, check_program
from edgeprune.exporting.files import write_file
from edgeprune.exporting.foreign import foreign
from edgeprune.exporting.onnx.attention import write_out_attention
from edgeprune.exporting.onnx.clamps import number_clamps


def export_onnx(program: nn.Module, example: Tensor, path: Path, nhwc: bool = False) -> None:
    """Write `program`, in eval mode, as a single ONNX file with a static batch of 1.

    Input and output are called `input` and `output`; with `nhwc` the input is [N, H, W, C], as cameras give it. The
    same program gives the same bytes, wherever its source stands. The file is checked by `onnx.checker` before it is
    written.

    Raises:
        ExportError: unfit program (:func:`check_program`), an operator without an ONNX counterpart, a full disk.
    """
    check_program(program, example)
    with foreign("ONNX export", path):
        import onnx

        exported = torch.onnx.export(
            suit_exporter(program),
            (example,),
            input_names=["input"],
            output_names=["output"],
            dynamo=True,
            verbose=False,
        )
        assert exported is not None  # no path is given, so the program comes back
        model = exported.model_proto
        _strip_provenance_(model)
        if nhwc:
            check_image(example, path)
            _turn_input_(model.graph)
        onnx.checker.check_model(model, full_check=True)
        content = model.SerializeToString(deterministic=True)
    write_file(path, content)


def suit_exporter(program: nn.Module) -> nn.Module:
    """A program that computes the same, without what torch's exporter refuses or writes wrongly."""
    return number_clamps(write_out_attention(program))


def _strip_provenance_(model: Any) -> None:
    """Remove stack traces and notes: they hold the paths of the machine that exported."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


def _turn_input_(graph: Any) -> None:
    """Put a transposition behind the input, which then has its channels last."""
    import onnx

    image, turned = graph.input[0], "input_channels_first"
    for node in graph.node:
        node.input[:] = [turned if name == image.name else name for name in node.input]
    graph.node.insert(0, onnx.helper.make_node("Transpose", [image.name], [turned], "node_input", perm=[0, 3, 1, 2]))
    _, channels, *sizes = (axis.dim_value for axis in image.type.tensor_type.shape.dim)
    for axis, size in zip(image.type.tensor_type.shape.dim[1:], (*sizes, channels), strict=True):
        axis.dim_value = size
