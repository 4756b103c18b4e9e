"""How fast, and how well, a pruned net recovers on an accelerator and on the processor.

    python benchmarks/recover_accelerator.py --accelerator cuda --epochs 5 [--quantization-aware-epochs 1]

CIFAR-10's ResNet-8 with the half of each group's channels that L2 ranks last taken away, then trained by the recipe's
settings for so many epochs, with the original as its teacher. A short training (`lesson`) is timed too. One row a call,
added to `benchmarks/results/recover_accelerator.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from machine import describe_machine
from torch.fx import GraphModule

from edgeprune.core.accelerators import ACCELERATORS, AUTO
from edgeprune.graph.groups import find_groups
from edgeprune.graph.surgery import apply_plan
from edgeprune.graph.trace import copy_program
from edgeprune.pruning.accelerator import find_accelerator
from edgeprune.pruning.evidence import Evidence
from edgeprune.pruning.held_out import hold_out
from edgeprune.pruning.importance import keep_best, score_channels
from edgeprune.pruning.lesson import prepare_lesson
from edgeprune.pruning.quantization_aware import train_quantization_aware
from edgeprune.pruning.recalibrate import evaluate
from edgeprune.pruning.recover import Course, recover
from edgeprune.pruning.sensitivity import label_batches
from edgeprune.recipes.load import Recipe, load_recipe
from edgeprune.stages.model import trace_recipe

RESULTS = Path(__file__).parent / "results" / "recover_accelerator.json"
RECIPE = "cifar10-resnet8"
LESSONS = 10


def main() -> None:
    """Train once and add a row."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--accelerator", choices=ACCELERATORS, default=AUTO)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--quantization-aware-epochs", type=int, default=0)
    options = parser.parse_args()
    recipe = load_recipe(RECIPE)
    settings = {"epochs": options.epochs, "quantization_aware_epochs": options.quantization_aware_epochs}
    recipe = replace(recipe, finetune=replace(recipe.finetune, **settings))
    row = measure(recipe, find_accelerator(options.accelerator))
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    RESULTS.write_text(json.dumps({"rows": [*rows, row]}, indent=1) + "\n")
    print(json.dumps(row, indent=1))


def measure(recipe: Recipe, device: torch.device) -> dict[str, object]:
    """Accuracies before and after, and the seconds of each epoch by the times at which its progress was told."""
    program, _ = trace_recipe(recipe)
    half = cut_half(program, recipe)
    told_s: list[float] = []

    def note(line: str) -> None:
        told_s.append(time.monotonic())
        print(line, flush=True)

    held_out, _ = hold_out(recipe, program)
    started_s = time.monotonic()
    recovered = recover(half, program, recipe, note, Course(held_out=held_out, device=device)).program
    row = describe(device, recipe) | {
        "quality_cut": evaluate(half, recipe.eval_data(), recipe.metric),
        "quality_recovered": evaluate(recovered, recipe.eval_data(), recipe.metric),
        "epoch_s": [after - before for before, after in zip([started_s, *told_s], told_s, strict=False)],
        **time_lesson(program, half, recipe, device),
    }
    if recipe.finetune.quantization_aware_epochs:
        aware = train_quantization_aware(recovered, program, recipe, note, Course(held_out=held_out, device=device))
        row["quality_quantization_aware"] = evaluate(aware.program, recipe.eval_data(), recipe.metric)
    return row


def cut_half(program: GraphModule, recipe: Recipe) -> GraphModule:
    """The program with the better half of each group's channels."""
    analysis = find_groups(program)
    evidence = Evidence(program, analysis, label_batches(program, recipe.calibration_data()), recipe.loss)
    scores = score_channels("l2", evidence)
    keep = {group.name: keep_best(scores[group.name], group.size // 2) for group in analysis.channel_groups}
    return apply_plan(program, analysis, keep)


def time_lesson(program: GraphModule, half: GraphModule, recipe: Recipe, device: torch.device) -> dict[str, object]:
    """What a step of a short training takes, in seconds, over several."""
    lesson = prepare_lesson(program, recipe, LESSONS, device)
    started_s = time.monotonic()
    for _ in range(LESSONS):
        lesson.give_(copy_program(half))
    steps = LESSONS * lesson.steps
    return {"lesson_step_s": (time.monotonic() - started_s) / steps, "lesson_mode": asdict(lesson.mode)}


def describe(device: torch.device, recipe: Recipe) -> dict[str, object]:
    """The machine and the settings of a row."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else device.type
    machine = describe_machine(["torch", "numpy"]) | {"threads": str(torch.get_num_threads())}
    load = os.getloadavg()[0]
    return {"accelerator": name, "machine": machine, "load_average": load, "finetune": asdict(recipe.finetune)}


if __name__ == "__main__":
    main()
