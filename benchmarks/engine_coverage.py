"""Prune the 68 networks of a list to half their channels, beside Torch-Pruning, and write what came of it.

    python -m venv --system-site-packages .bench      # or any environment that also sees edgeprune's own
    .bench/bin/pip install --no-deps timm==1.0.31 torchvision==0.28.0 torch-pruning==1.6.1
    .bench/bin/python benchmarks/engine_coverage.py engine_models.txt [--only NAME ...] [--without-onnx]
    .bench/bin/python benchmarks/engine_coverage.py [engine_models.txt] --families [--only NAME ...] [--out FILE]

A network counts if every convolution and linear layer that is not tied to the model's output or to token positions
became narrower, the pruned graph runs, `check_surgery` stays below 1e-9, and its ONNX export agrees with torch. A
second surgery cuts every second residual branch as well, with the same proof; its time counts in none of the others.
`response` is the part of the pruned net's output that changes with the input, all that proof and ONNX are able to see.
Torch-Pruning gets what its own example for timm gives it: group magnitude, global, heads named, attention rewritten.
Channels are ranked alike by both (L2 norm); weights are random, so accuracies mean nothing here. Times are processor
time of one thread.

`--families` takes one net of every family of timm instead (or those of the list), without Torch-Pruning, each in a
process of its own with a time limit; it goes on where it was stopped, and `--only` does named nets anew.
`layers_apart` says where the layers of the pruned graph and of its file are not the same.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import signal
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

import onnxruntime
import torch
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
from torch import Tensor, nn
from torch.fx import GraphModule

from edgeprune.core.latency.layers import LayerShape
from edgeprune.errors import ExportError
from edgeprune.exporting.onnx.export import suit_exporter
from edgeprune.exporting.onnx.layers import read_onnx_layers
from edgeprune.graph.analysis import Analysis
from edgeprune.graph.costs import list_shapes
from edgeprune.graph.groups import find_groups
from edgeprune.graph.proof import check_surgery
from edgeprune.graph.surgery import apply_plan
from edgeprune.graph.trace import trace_model

RESULTS = Path(__file__).parent / "results" / "engine_coverage.json"
FAMILIES = Path(__file__).parent / "engine_families.txt"
FAMILY_RESULTS = RESULTS.with_name("engine_families.json")
FAMILY_LIMIT_S = 1500
MOST_PARAMETERS = 200_000_000
PEER_LIMIT_S = 120
MOST_OF_RESPONSE = 0.05
"""Errors must be no more than this share of the response: beside an output that hardly moves they would not show."""
PACKAGES = ("torch", "timm", "torchvision", "torch-pruning", "onnx", "onnxruntime", "numpy", "scipy")


def parse_models(text: str) -> list[tuple[str, tuple[int, ...]]]:
    """Names and input shapes."""
    rows = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(name, tuple(int(size) for size in shape.split("x"))) for name, shape in rows]


def build_model(name: str) -> nn.Module:
    """A network with random weights."""
    torch.manual_seed(0)
    if name.startswith("tv:"):
        import torchvision

        return enliven_(torchvision.models.get_model(name[3:], weights=None))
    import timm

    return enliven_(timm.create_model(name, pretrained=False))


def enliven_(model: nn.Module) -> nn.Module:
    """Leave no scale or statistic at an initial value that would hide a wrong slice."""
    with torch.no_grad():
        for key, value in (*model.named_parameters(), *model.named_buffers()):
            if key.endswith("running_var"):
                value.uniform_(0.5, 2.0)
            elif value.is_floating_point() and bool((value == value.flatten()[0]).all()):
                value.add_(torch.randn_like(value), alpha=0.1)
    return model.eval()


def rouse_(model: nn.Module, example: Tensor) -> nn.Module:
    """Let the input be heard at the output: an untrained net's signal may die out, and then no error shows there.

    Weights are raised to a gain of 1, scales of batch norm that begin near 0 to about 1, and its statistics are those
    of random inputs, found on a copy, as a model may keep things from a forward pass.
    """
    with torch.no_grad():
        for value in (parameter for parameter in model.parameters() if parameter.dim() > 1):
            gain = float(value.square().mean().sqrt()) * value[0].numel() ** 0.5
            value.mul_(max(1.0, 1 / gain))
        twin = copy.deepcopy(model)
        norms = [module for module in twin.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.train().momentum = 1.0
            norm.weight.add_(float(norm.weight.abs().mean() < 0.5))
        if norms:
            twin(torch.randn(4, *example.shape[1:]))
    model.load_state_dict(twin.state_dict())
    return model


def response(program: nn.Module, example: Tensor) -> float:
    """How much of the output changes with the input: between two examples, relative to the largest value."""
    other = torch.randn_like(example) if example.is_floating_point() else example.flip(1)
    with torch.no_grad():
        pairs = [torch.utils._pytree.tree_leaves(program(inputs)) for inputs in (example, other)]
    return min(float((first - second).abs().max() / first.abs().max()) for first, second in zip(*pairs, strict=True))


def unheard(strength: float, *errors: float) -> list[str]:
    """Why nothing is shown: the errors are too large beside what the input changes."""
    return [] if max(errors) <= MOST_OF_RESPONSE * strength else [f"response: {strength:.1e}"]


def define_missing_operators() -> Any:
    """Schemas that torchvision expects of its C++ half, which has no CPU build."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def onnx_error(pruned: GraphModule, example: Tensor, least: float = 0.0) -> float:
    """`file_error` of the program's own export."""
    with tempfile.TemporaryDirectory() as folder:
        return file_error(write_onnx(pruned, example, Path(folder)), pruned, example, least)


def write_onnx(program: GraphModule, example: Tensor, folder: Path) -> Path:
    """The program's own export, as edgeprune makes it, with as many outputs as it has."""
    path = folder / "net.onnx"
    exportable = suit_exporter(program)
    torch.onnx.export(exportable, (example,), path, dynamo=True, external_data=False, verbose=False)
    return path


def onnx_figures(pruned: GraphModule, analysis: Analysis, example: Tensor) -> dict[str, Any]:
    """How far the export is off, and what takes time in it otherwise than the graph says (at most six such layers)."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_onnx(pruned, example, Path(folder))
        error = file_error(path, pruned, example)
        try:
            in_file = Counter(map(of_values, read_onnx_layers(path)))
        except ExportError as exc:
            return {"onnx_error": error, "layers_apart": [str(exc)]}
    listed = Counter(map(of_values, list_shapes(analysis, {})))
    apart = [f"{count} more in the graph: {layer}" for layer, count in (listed - in_file).items()]
    apart += [f"{count} more in the file: {layer}" for layer, count in (in_file - listed).items()]
    return {"onnx_error": error, "layers_apart": apart[:6]}


def of_values(shape: LayerShape) -> str:
    """A shape as lists are compared: of an operator on single values, which a file may keep in another order of axes,
    how many there are."""
    if shape.has_weights or shape.op in ("pool", "attention", "resize", "product"):
        return repr(shape)
    return f"{shape.op} of {shape.cin * prod(shape.size)} values"


def file_error(path: Path, program: GraphModule, example: Tensor, least: float = 0.0) -> float:
    """The largest `relative_error` of an ONNX file in ONNX Runtime against a program."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {session.get_inputs()[0].name: example.numpy()})
    with torch.no_grad():
        expected = torch.utils._pytree.tree_leaves(program(example))
    pairs = zip(outputs, expected, strict=True)
    return max(relative_error(torch.from_numpy(output), reference, least) for output, reference in pairs)


def relative_error(output: Tensor, expected: Tensor, least: float = 0.0) -> float:
    """The largest difference, relative to the largest value (or `least`) of the same channel, for vectors of all."""
    axes = tuple(range(2, expected.dim())) or tuple(range(expected.dim()))
    scale = expected.abs().amax(axes, keepdim=True).clamp(min=least)
    return float(((output - expected).abs() / scale).max())


def prune_ours(name: str, example: Tensor, with_onnx: bool) -> dict[str, Any]:
    """Our half of a row."""
    model = rouse_(build_model(name), example)
    program, export_s = timed(lambda: trace_model(model, example))
    analysis, analysis_s = timed(lambda: find_groups(program))
    keep, rank_s = timed(lambda: strongest_half(program, analysis))
    pruned, prune_s = timed(lambda: apply_plan(program, analysis, keep))
    error = check_surgery(program, analysis, keep, pruned, example)
    strength = response(pruned, example)
    figures, whole = channel_figures(analysis, keep)
    files = onnx_figures(pruned, find_groups(pruned), example) if with_onnx else {"onnx_error": None}
    onnx = files["onnx_error"]
    branches = prune_with_branches(program, analysis, keep, example)
    reasons = [f"proof: relative error {error:.1e}"] * (not error <= TOLERANCE)
    reasons += list(analysis.faults)
    reasons += [f"whole: {', '.join(whole)}"] * bool(whole)
    if onnx is not None and not onnx <= ONNX_TOLERANCE:
        reasons.append(f"ONNX differs by {onnx:.1e}")
    reasons += unheard(strength, error, onnx or 0.0) + branch_failures(branches)
    return {
        "ok": not reasons,
        "reason": "; ".join(reasons),
        **figures,
        "notes": list(analysis.notes),
        "response": strength,
        "proof_error": error,
        **files,
        **branches,
        "export_s": round(export_s, 4),
        "analysis_s": round(analysis_s, 4),
        "prune_s": round(rank_s + prune_s, 4),
    }


def attend(self: Any, x: Tensor, *_: Any, **__: Any) -> Tensor:
    """timm's attention without its fixed width, as Torch-Pruning's example replaces it."""
    batch, tokens, _ = x.shape
    qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = qkv.unbind(0)
    query, key = self.q_norm(query), self.k_norm(key)
    mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, -1))


def _give_up(*_: object) -> None:
    raise TimeoutError(f"no answer within {PEER_LIMIT_S} s")


def prune_peer(name: str, example: Tensor) -> dict[str, Any]:
    """Torch-Pruning's half of a row."""
    import timm
    import torch_pruning as tp

    model, heads = build_model(name), {}
    for module in model.modules():
        if isinstance(module, timm.layers.Attention):
            module.forward = attend.__get__(module)
            heads[module.qkv] = module.num_heads
        elif hasattr(module, "num_heads") and hasattr(module, "qkv"):
            heads[module.qkv] = module.num_heads
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    classifiers = [module for module in linear if module.out_features == 1000] or linear[-1:]
    options = {"global_pruning": True, "pruning_ratio": 0.5, "num_heads": heads, "ignored_layers": classifiers}
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    before = sum(value.numel() for value in model.parameters())
    signal.signal(signal.SIGPROF, _give_up)
    signal.setitimer(signal.ITIMER_PROF, PEER_LIMIT_S)
    try:
        pruner, analysis_s = timed(lambda: tp.pruner.BasePruner(model, example, importance=importance, **options))
        _, prune_s = timed(pruner.step)
        for module in model.modules():
            if isinstance(module, timm.layers.Attention):
                module.num_heads = pruner.num_heads[module.qkv]
                module.head_dim = module.qkv.out_features // (3 * module.num_heads)
        with torch.no_grad():
            model(example)
    except Exception as exc:  # whatever the peer raises is its result
        return {"peer_ok": False, "peer_reason": f"{type(exc).__name__}: {exc}".splitlines()[0][:200], "peer_s": None}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    widths = [layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features for layer in layers]
    return {
        "peer_ok": sum(value.numel() for value in model.parameters()) < before,
        "peer_reason": "",
        "peer_s": round(analysis_s + prune_s, 4),
        "peer_analysis_s": round(analysis_s, 4),
        "peer_prune_s": round(prune_s, 4),
        "peer_min_channels": min(widths),
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Coverage, and times over the networks that both can do."""
    both = [row for row in rows if row["ok"] and row["peer_ok"]]
    return {
        "ok": sum(row["ok"] for row in rows),
        "peer_ok": sum(row["peer_ok"] for row in rows),
        "of": len(rows),
        "layers_alike_in_graph_and_file": sum(row.get("layers_apart") == [] for row in rows),
        "both": len(both),
        "our_analysis_and_pruning_s": round(sum(row["analysis_s"] + row["prune_s"] for row in both), 3),
        "peer_analysis_and_pruning_s": round(sum(row["peer_s"] for row in both), 3),
        "our_export_s": round(sum(row["export_s"] for row in both), 3),
        **branch_summary(rows),
    }


def do_families(models: Path, only: list[str], out: Path) -> None:
    """Take every net of a list, writing the results after each; those in the results already are not done again."""
    rows = {row["name"]: row for row in json.loads(out.read_text())["networks"]} if out.exists() else {}
    for name, shape in parse_models(models.read_text()):
        if name in only or (name not in rows and not only):
            rows[name] = {"name": name, **do_in_process(name, shape)}
            ordered = [rows[network] for network, _ in parse_models(models.read_text()) if network in rows]
            counts = {"passed": sum(row["ok"] for row in ordered), "total": len(ordered)}
            counts["layers_alike_in_graph_and_file"] = sum(row.get("layers_apart") == [] for row in ordered)
            document = {"machine": describe_machine(PACKAGES), "summary": counts, "networks": ordered}
            out.write_text(json.dumps(document, indent=1) + "\n")
            print(json.dumps(rows[name])[:400], flush=True)
    print(json.dumps({name: row["reason"] for name, row in rows.items() if not row["ok"]}, indent=1))


def do_in_process(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """Our half of a row, from a process of its own: its memory comes back, and it ends in time."""
    size = "x".join(map(str, shape))
    command = [sys.executable, __file__, "--one", name, size]
    try:
        completed = subprocess.run(command, capture_output=True, text=True, timeout=FAMILY_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return {"ok": False, "reason": f"not done within {FAMILY_LIMIT_S} s on a machine that others use"}
    lines = completed.stdout.strip().splitlines()
    if completed.returncode or not lines:
        return {
            "ok": False,
            "reason": f"the process ended with {completed.returncode}: {completed.stderr.strip()[-200:]}",
        }
    row: dict[str, Any] = json.loads(lines[-1])
    return row


def do_one(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """Our half of a row, or what went wrong."""
    example = torch.randn(1, *shape)
    try:
        count = sum(value.numel() for value in build_model(name).parameters())
        if count > MOST_PARAMETERS:
            return {"ok": False, "reason": f"too large for this machine: {count:,} parameters"}
        return prune_ours(name, example, with_onnx=True)
    except Exception as exc:  # a row that says what went wrong
        return {"ok": False, "reason": f"{type(exc).__name__}: {exc}".splitlines()[0][:300]}


def main() -> None:
    """Run the list, writing the results after every network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="?")
    parser.add_argument("--families", action="store_true")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--without-onnx", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.families:
        do_families(options.models or FAMILIES, options.only, options.out or FAMILY_RESULTS)
        return
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    library = define_missing_operators()
    if options.one:
        name, size = options.one
        print(json.dumps(do_one(name, tuple(map(int, size.split("x"))))))
        return
    if options.models is None:
        parser.error("expected a list of models, or --families")
    out = options.out or RESULTS
    rows: list[dict[str, Any]] = []
    for name, shape in parse_models(options.models.read_text()):
        if options.only and name not in options.only:
            continue
        example = torch.randn(1, *shape)
        try:
            ours = prune_ours(name, example, not options.without_onnx)
        except Exception as exc:  # a row that says what went wrong
            ours = {"ok": False, "reason": f"{type(exc).__name__}: {exc}".splitlines()[0][:300]}
        rows.append({"name": name, **ours, **prune_peer(name, example)})
        document = {"machine": describe_machine(PACKAGES), "summary": summary(rows), "networks": rows}
        out.write_text(json.dumps(document, indent=1) + "\n")
        print(json.dumps(rows[-1])[:400], flush=True)
        gc.collect()
    del library
    print(json.dumps(summary(rows), indent=1))


if __name__ == "__main__":
    main()
