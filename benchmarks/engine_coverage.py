"""Prune the 68 networks of a list to half their channels, beside Torch-Pruning, and write what came of it.

    python -m venv --system-site-packages .bench      # or any environment that also sees edgeprune's own
    .bench/bin/pip install --no-deps timm==1.0.31 torchvision==0.28.0 torch-pruning==1.6.1
    .bench/bin/python benchmarks/engine_coverage.py engine_models.txt [--only NAME ...] [--without-onnx]

A network counts if every convolution and linear layer that is not tied to the model's output or to token positions
became narrower, the pruned graph runs, `check_surgery` stays below 1e-9, and its ONNX export agrees with torch.
Torch-Pruning gets what its own example for timm gives it: group magnitude, global, heads named, attention rewritten.
Channels are ranked alike by both (L2 norm); weights are random, so accuracies mean nothing here.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import signal
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from edgeprune.graph.costs import count_macs, layer_shapes
from edgeprune.graph.groups import Analysis, find_groups
from edgeprune.graph.proof import check_surgery
from edgeprune.graph.surgery import apply_plan
from edgeprune.graph.trace import reexport, trace_model

RESULTS = Path(__file__).parent / "results" / "engine_coverage.json"
PEER_LIMIT_S = 120
TOLERANCE, ONNX_TOLERANCE = 1e-9, 1e-4
TIED_TO_POSITIONS = "positions that are no channels"


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


def define_missing_operators() -> Any:
    """Schemas that torchvision expects of its C++ half, which has no CPU build."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def strongest_half(program: GraphModule, analysis: Analysis) -> dict[str, list[int]]:
    """The half of every group whose slices have the largest L2 norm."""
    keep = {}
    for group in analysis.groups:
        if group.frozen or group.size < 2:
            continue
        norms = np.zeros(group.size)
        for member in (one for one in group.members if one.role == "out"):
            weight = program.get_parameter(member.tensor).detach().transpose(0, member.dim).flatten(1).square().sum(1)
            channels = analysis.channels(group.name, member.tensor, member.dim)
            np.add.at(norms, channels[channels >= 0], weight.numpy()[channels >= 0])
        keep[group.name] = sorted(np.argsort(-norms)[: group.size // 2].tolist())
    return keep


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """A result and the seconds that it took."""
    start = time.perf_counter()
    return function(), time.perf_counter() - start


def onnx_error(pruned: GraphModule, example: Tensor) -> float:
    """The largest difference between ONNX Runtime and torch, relative to the largest output."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        torch.onnx.export(reexport(pruned, example), (example,), path, dynamo=True, external_data=False, verbose=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found = session.run(None, {session.get_inputs()[0].name: example.numpy()})
    with torch.no_grad():
        expected = torch.utils._pytree.tree_leaves(pruned(example))
    return max(
        float(np.abs(one - other.numpy()).max() / other.abs().max()) for one, other in zip(found, expected, strict=True)
    )


def prune_ours(name: str, example: Tensor, with_onnx: bool) -> dict[str, Any]:
    """Our half of a row."""
    program, export_s = timed(lambda: trace_model(build_model(name), example))
    analysis, analysis_s = timed(lambda: find_groups(program))
    plan, rank_s = timed(lambda: strongest_half(program, analysis))
    pruned, prune_s = timed(lambda: apply_plan(program, analysis, plan))
    error = check_surgery(program, analysis, plan, pruned, example)
    with torch.no_grad():
        pruned(example)
    widths = {group: len(kept) for group, kept in plan.items()}
    before, after = layer_shapes(analysis, {}), layer_shapes(analysis, widths)
    bound = {
        member.tensor.removesuffix(".weight")
        for group in analysis.groups
        if group.frozen.endswith("model's output") or TIED_TO_POSITIONS in group.frozen or group.size < 2
        for member in group.members
        if member.role == "out"
    }
    whole = [key for key in before if before[key].cout == after[key].cout > 1 and key.split("@")[0] not in bound]
    trunk = [key for key in before if key.split("@")[0] not in bound]
    onnx = onnx_error(pruned, example) if with_onnx else None
    reasons = [f"proof: relative error {error:.1e}"] * (error > TOLERANCE)
    reasons += [f"whole: {', '.join(whole)}"] * bool(whole)
    if onnx is not None and onnx > ONNX_TOLERANCE:
        reasons.append(f"ONNX differs by {onnx:.1e}")
    return {
        "ok": not reasons,
        "reason": "; ".join(reasons),
        "channels_kept": round(sum(after[key].cout for key in trunk) / sum(before[key].cout for key in trunk), 4),
        "macs_kept": round(count_macs(analysis, widths) / count_macs(analysis, {}), 4),
        "min_channels": min(after[key].cout for key in trunk),
        "min_channels_before": min(before[key].cout for key in trunk),
        "groups": len(plan),
        "notes": list(analysis.notes),
        "proof_error": error,
        "onnx_error": onnx,
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
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(PEER_LIMIT_S)
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
        signal.alarm(0)
    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    widths = [one.out_channels if isinstance(one, nn.Conv2d) else one.out_features for one in layers]
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
        "both": len(both),
        "our_analysis_and_pruning_s": round(sum(row["analysis_s"] + row["prune_s"] for row in both), 3),
        "peer_analysis_and_pruning_s": round(sum(row["peer_s"] for row in both), 3),
        "our_export_s": round(sum(row["export_s"] for row in both), 3),
    }


def machine() -> dict[str, str]:
    """Where and with what this was measured."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    packages = ("torch", "timm", "torchvision", "torch-pruning", "onnx", "onnxruntime", "numpy", "scipy")
    return {"cpu": names[0] if names else platform.machine(), "threads": "1", "python": platform.python_version()} | {
        name: version(name) for name in packages
    }


def main() -> None:
    """Run the list, writing the results after every network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--without-onnx", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    library = define_missing_operators()
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
        document = {"machine": machine(), "summary": summary(rows), "networks": rows}
        options.out.write_text(json.dumps(document, indent=1) + "\n")
        print(json.dumps(rows[-1])[:400], flush=True)
        gc.collect()
    del library
    print(json.dumps(summary(rows), indent=1))


if __name__ == "__main__":
    main()
