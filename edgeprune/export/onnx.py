"""ONNX, float: torch's own exporter, without what makes its files differ from machine to machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeprune.export.checks import check_program
from edgeprune.export.files import write_file
from edgeprune.export.foreign import foreign


def export_onnx(program: nn.Module, example: Tensor, path: Path) -> None:
    """Write `program`, in eval mode, as a single ONNX file with a static batch of 1.

    Input and output are called `input` and `output`. The same program gives the same bytes, wherever its source
    stands. The file is checked by `onnx.checker` before it is written.

    Raises:
        ExportError: unfit program (:func:`check_program`), an operator without an ONNX counterpart, a full disk.
    """
    check_program(program, example)
    with foreign("ONNX export", path):
        import onnx

        exported = torch.onnx.export(
            program, (example,), input_names=["input"], output_names=["output"], dynamo=True, verbose=False
        )
        assert exported is not None  # no path is given, so the program comes back
        model = exported.model_proto
        _strip_provenance_(model)
        onnx.checker.check_model(model, full_check=True)
        content = model.SerializeToString(deterministic=True)
    write_file(path, content)


def _strip_provenance_(model: Any) -> None:
    """Remove stack traces and notes: they hold the paths of the machine that exported."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
