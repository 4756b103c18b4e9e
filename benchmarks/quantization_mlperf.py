"""The reference models of MLPerf Tiny (Banbury et al. 2021) in every runtime, held against reference kernels.

They come from another converter, and their int8 files take and give int8. Inputs are drawn evenly from what an input
can hold: agreement between runtimes, not accuracy, is what is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from quantization_runtimes import Run, other_runtimes

from edgeprune.errors import EdgepruneError
from edgeprune.exporting.files import sha256_of
from edgeprune.exporting.parity.chain import compare_outputs
from edgeprune.exporting.parity.tolerances import TOLERANCES
from edgeprune.exporting.runners import run_file

ROWS = 64


def examine_models(folder: Path) -> dict[str, Any]:
    """Every model of the folder, by name."""
    models = {}
    for path in sorted(folder.glob("*.tflite")):
        print(path.stem, flush=True)
        inputs = draw_inputs(path)
        models[path.stem] = {
            "network": path.stem,
            "weights": "reference model of MLPerf Tiny",
            "inputs": ROWS,
            "files": list(_rows(path, inputs)),
        }
    return models


def draw_inputs(path: Path) -> np.ndarray:
    """Inputs `[N, ...]` in float32, drawn evenly from what the input holds; from 0 to 1 where that is float."""
    from ai_edge_litert.interpreter import Interpreter

    (details,) = Interpreter(model_path=str(path)).get_input_details()
    scale, zero = details["quantization"]
    low, high = ((-128 - zero) * scale, (127 - zero) * scale) if scale else (0.0, 1.0)
    shape = (ROWS, *details["shape"][1:])
    return np.random.default_rng(0).uniform(low, high, shape).astype(np.float32)


def _rows(path: Path, inputs: np.ndarray) -> Iterator[dict[str, Any]]:
    reference = "litert, reference kernels"
    runs: dict[str, Run] = {"litert": run_file, reference: partial(run_file, optimised=False)} | other_runtimes()
    expected = runs[reference](path, inputs)
    precision = find_precision(path)
    for runtime, run in runs.items():
        row: dict[str, Any] = {"format": "tflite", "precision": precision, "runtime": runtime, "path": path.name}
        row |= {"sha256": sha256_of(path), "bytes": path.stat().st_size}
        try:
            outputs = run(path, inputs)
        except EdgepruneError as exc:
            yield row | {"error": " ".join(str(exc).split())[-160:]}
            continue
        if runtime != reference:
            link = compare_outputs(runtime, expected, outputs, TOLERANCES["xnnpack"])
            row |= {
                "sqnr_db": round(link.sqnr_db, 1),
                "max_error": link.max_error,
                "top1_agreement": link.top1_agreement,
            }
        print(f"  {row}", flush=True)
        yield row


def find_precision(path: Path) -> str:
    """What the file holds: its weights and its input tell."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    (model_input,) = interpreter.get_input_details()
    weights = any(
        tensor["dtype"] == np.int8 and len(tensor["shape"]) > 1 for tensor in interpreter.get_tensor_details()
    )
    return "int8" if model_input["dtype"] == np.int8 else "dynamic-int8" if weights else "fp32"
