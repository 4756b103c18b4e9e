"""Prune small random-weight nets of the transformers library, and of other makers, to half, with all checks.

    .bench/bin/pip install --no-deps timm==1.0.31          # see engine_coverage.py; transformers is there already
    .bench/bin/python benchmarks/engine_transformers.py [--only NAME ...] [--without-onnx]

A net counts if its proof stays below 1e-9, with every second residual branch cut too, and its ONNX export agrees with
torch. What stays whole is listed.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers as hf
from engine_coverage import (
    define_missing_operators,
    enliven_,
    onnx_error,
    response,
    rouse_,
    unheard,
)
from engine_papers import PAPERS
from engine_plans import (
    ONNX_TOLERANCE,
    TOLERANCE,
    branch_failures,
    branch_summary,
    prune_with_branches,
    strongest_half,
    timed,
)
from machine import describe_machine
from torch import Tensor, nn
from torch.fx import GraphModule

from edgeprune.graph.costs import count_macs, layer_shapes
from edgeprune.graph.groups import find_groups
from edgeprune.graph.proof import check_surgery
from edgeprune.graph.surgery import apply_plan
from edgeprune.graph.trace import trace_model

RESULTS = Path(__file__).parent / "results" / "engine_transformers.json"
PACKAGES = ("torch", "transformers", "timm", "onnx", "onnxruntime", "numpy", "scipy")
IMAGE, WORDS = (1, 3, 64, 64), (1, 12)
VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
PATCHES = {**VIT, "image_size": 64, "patch_size": 16}
TEXT = {**VIT, "vocab_size": 100}
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
HEADS = {"num_attention_heads": [1, 2, 2, 4]}
LEVIT_HEADS = {"num_attention_heads": [2, 2, 4]}
WINDOWS = {"image_size": 64, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
WAVE = {"conv_dim": [16, 16, 16], "conv_stride": [5, 2, 2], "conv_kernel": [10, 3, 3], "classifier_proj_size": 16}

CLASSIFIERS: dict[str, dict[str, Any]] = {
    "ResNet": {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1]},
    "MobileNetV1": {"image_size": 64, "depth_multiplier": 0.25},
    "MobileNetV2": {"image_size": 64, "depth_multiplier": 0.35},
    "ViT": PATCHES,
    "DeiT": PATCHES,
    "Beit": {**PATCHES, "use_relative_position_bias": True},
    "Dinov2": {key: value for key, value in PATCHES.items() if key != "intermediate_size"},
    "ConvNext": {**STAGES, "depths": [1, 1, 2, 1]},
    "ConvNextV2": {**STAGES, "depths": [1, 1, 2, 1]},
    "RegNet": {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "groups_width": 8},
    "EfficientNet": {"image_size": 64, "width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320},
    "Swin": WINDOWS,
    "Swinv2": WINDOWS,
    "MobileViT": {"image_size": 64, "hidden_sizes": [24, 32, 40], "neck_hidden_sizes": [8, 8, 12, 16, 20, 24, 32]},
    "MobileViTV2": {"image_size": 64, "width_multiplier": 0.5},
    "Segformer": {**STAGES, **HEADS, "decoder_hidden_size": 16},
    "Pvt": {**STAGES, **HEADS, "image_size": 64},
    "PoolFormer": STAGES,
    "Levit": {"image_size": 64, "hidden_sizes": [16, 24, 32], "depths": [1] * 3, "key_dim": [8] * 3, **LEVIT_HEADS},
    "Cvt": {"embed_dim": [8, 16, 32], "num_heads": [1, 2, 4], "depth": [1, 2, 10]},
    "FocalNet": {"image_size": 64, "embed_dim": 16, "depths": [1, 1, 1, 1]},
}  # fmt: skip
READERS: dict[str, dict[str, Any]] = {
    "Bert": TEXT,
    "DistilBert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "vocab_size": 100},
    "Electra": {**TEXT, "embedding_size": 16},
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 100, "use_cache": False, "pad_token_id": 0},
}


class Output(nn.Module):
    """One field of a model's output."""

    def __init__(self, model: nn.Module, field: str = "logits") -> None:
        super().__init__()
        self.model, self.field = model, field

    def forward(self, x: Tensor) -> Tensor:
        """The field."""
        return getattr(self.model(x), self.field)


class Recurrent(nn.Module):
    """A recurrent cell over a sequence, read at its end."""

    def __init__(self, cell: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cell = cell(6, 16, num_layers=2, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, T, 6]` to `[N, 3]`."""
        return self.head(self.cell(x)[0][:, -1])


class UNet(nn.Module):
    """Two levels down, two up with transposed convolutions, joined by concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(a, b, 3, padding=1) for a, b in ((3, 8), (8, 16), (16, 32))])
        self.up = nn.ModuleList([nn.ConvTranspose2d(32, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)])
        self.mix = nn.ModuleList([nn.Conv2d(32, 16, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)])
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, 3, H, W]` to `[N, 2, H, W]`."""
        high = F.relu(self.down[0](x))
        middle = F.relu(self.down[1](F.max_pool2d(high, 2)))
        low = F.relu(self.down[2](F.max_pool2d(middle, 2)))
        middle = F.relu(self.mix[0](torch.cat((self.up[0](low), middle), 1)))
        return self.head(F.relu(self.mix[1](torch.cat((self.up[1](middle), high), 1))))


def _classifier(name: str, options: dict[str, Any]) -> nn.Module:
    task = "ForSemanticSegmentation" if name == "Segformer" else "ForImageClassification"
    return Output(getattr(hf, f"{name}{task}")(getattr(hf, f"{name}Config")(**options)))


def _reader(name: str, options: dict[str, Any]) -> nn.Module:
    return Output(getattr(hf, f"{name}ForSequenceClassification")(getattr(hf, f"{name}Config")(**options)))


def _whisper() -> nn.Module:
    sizes = {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 48}
    config = hf.WhisperConfig(**sizes, num_mel_bins=16, max_source_positions=50)
    return Output(hf.models.whisper.modeling_whisper.WhisperEncoder(config), "last_hidden_state")


def _wav2vec() -> nn.Module:
    config = hf.Wav2Vec2Config(**VIT, **WAVE, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4)
    return Output(hf.Wav2Vec2ForSequenceClassification(config))


def cases() -> dict[str, tuple[Callable[[], nn.Module], Tensor]]:
    """A constructor and an example by name."""
    nets: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {}
    for name, options in CLASSIFIERS.items():
        nets[name] = (lambda name=name, options=options: _classifier(name, options)), torch.randn(IMAGE)
    for name, options in READERS.items():
        nets[name] = (lambda name=name, options=options: _reader(name, options)), torch.randint(1, 90, WORDS)
    nets["WhisperEncoder"] = _whisper, torch.randn(1, 16, 100)
    nets["Wav2Vec2"] = _wav2vec, torch.randn(1, 2000)
    nets["LSTM"] = (lambda: Recurrent(nn.LSTM)), torch.randn(1, 9, 6)
    nets["GRU"] = (lambda: Recurrent(nn.GRU)), torch.randn(1, 9, 6)
    nets["UNet"] = UNet, torch.randn(1, 3, 32, 32)
    return nets | PAPERS


def compare_onnx(program: GraphModule, pruned: GraphModule, example: Tensor) -> tuple[float | None, str]:
    """The pruned net's difference in ONNX Runtime; none where torch exports the original to ONNX no better.

    Raises:
        Exception: the original goes through and the pruned net does not.
    """
    try:
        return onnx_error(pruned, example), ""
    except Exception:
        try:
            onnx_error(program, example)
        except Exception as exc:
            return None, f"torch.onnx fails on the unpruned net too: {type(exc).__name__}"
        raise


def prune(build: Callable[[], nn.Module], example: Tensor, with_onnx: bool) -> dict[str, Any]:
    """One row."""
    torch.manual_seed(0)
    program = trace_model(rouse_(enliven_(build()), example), example)
    analysis, analysis_s = timed(lambda: find_groups(program))
    keep = strongest_half(program, analysis)
    pruned, prune_s = timed(lambda: apply_plan(program, analysis, keep))
    error = check_surgery(program, analysis, keep, pruned, example)
    onnx, onnx_reason = compare_onnx(program, pruned, example) if with_onnx else (None, "not tried")
    widths = {name: len(channels) for name, channels in keep.items()}
    before, after = layer_shapes(analysis, {}), layer_shapes(analysis, widths)
    strength, branches = response(pruned, example), prune_with_branches(program, analysis, keep, example)
    reasons = [f"proof: relative error {error:.1e}"] * (not error <= TOLERANCE) + branch_failures(branches)
    reasons += unheard(strength, error, onnx or 0.0)
    if onnx is not None and not onnx <= ONNX_TOLERANCE:
        reasons.append(f"ONNX differs by {onnx:.1e}")
    return {
        "ok": not reasons,
        "reason": "; ".join(reasons),
        "onnx_reason": onnx_reason,
        "response": strength,
        "proof_error": error,
        "onnx_error": onnx,
        "macs_kept": round(count_macs(analysis, widths) / max(1, count_macs(analysis, {})), 4),
        "whole": [name for name in before if before[name].cout == after[name].cout > 1],
        "notes": list(analysis.notes),
        **branches,
        "analysis_s": round(analysis_s, 4),
        "prune_s": round(prune_s, 4),
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How many nets pass, and their branches."""
    return {"ok": sum(row["ok"] for row in rows), "of": len(rows), **branch_summary(rows)}


def main() -> None:
    """Run all, writing the results after every net."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--without-onnx", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    library, rows = define_missing_operators(), []
    for name, (build, example) in cases().items():
        if options.only and name not in options.only:
            continue
        try:
            row = prune(build, example, not options.without_onnx)
        except Exception as exc:  # a row that says what went wrong
            row = {"ok": False, "reason": f"{type(exc).__name__}: {exc}".splitlines()[0][:300]}
        rows.append({"name": name, **row})
        document = {"machine": describe_machine(PACKAGES), "summary": summary(rows), "networks": rows}
        RESULTS.write_text(json.dumps(document, indent=1) + "\n")
        print(json.dumps(rows[-1])[:300], flush=True)
    del library
    print(json.dumps(summary(rows), indent=1))


if __name__ == "__main__":
    main()
