"""Stages on the net itself: trace it, score its channels, cut it, let it recover."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch.fx import GraphModule

from edgeprune.core.plan import PruningPlan, parse_plan
from edgeprune.core.target import AUTO, MIXED
from edgeprune.errors import PlanError, RecipeError
from edgeprune.graph.costs import count_parameters
from edgeprune.graph.proof import check_surgery
from edgeprune.graph.storage import load_model, model_sha256, save_model
from edgeprune.graph.surgery import apply_plan
from edgeprune.graph.trace import trace_model
from edgeprune.prune.evidence import Batch, Evidence
from edgeprune.prune.importance import score_channels
from edgeprune.prune.lesson import prepare_lesson
from edgeprune.prune.masks import make_permanent
from edgeprune.prune.quantization_aware import train_quantization_aware
from edgeprune.prune.recalibrate import evaluate, recalibrate_if_better
from edgeprune.prune.reconstruct import reconstruct_
from edgeprune.prune.recover import recover
from edgeprune.prune.sensitivity import label_batches, measure_sensitivity, tried_widths
from edgeprune.recipes.check import check_recipe
from edgeprune.run import read_json
from edgeprune.stages.job import Job
from edgeprune.stages.latency import check_budget

PROOF_LIMIT = 1e-9
"""Largest relative difference, in float64, between the cut net and the original with those channels neutralised."""
IMPORTANCE = "l2"
STATISTICS_INPUTS = 4096
"""Calibration inputs that batch-norm statistics are taken from, if there are so many."""
ROUNDED = ("int8", "dynamic-int8", "int16x8", MIXED, AUTO)
"""Precisions that ship, or may, with int8 weights."""


def trace(job: Job) -> dict[str, Any]:
    """Build the model, check it, trace it, find its channel groups."""
    recipe = job.recipe
    check_recipe(recipe)
    example = recipe.example_input()
    save_model(trace_model(make_permanent(recipe.model()), example), job.run.product("original.pt2"), example)
    analysis = job.analysis
    prunable = [group.name for group in analysis.channel_groups]
    branches = [group.name for group in analysis.groups if group.is_branch and not group.frozen]
    if not prunable:
        raise PlanError(f"recipe {recipe.name}: no channel of this net can be pruned: {'; '.join(analysis.notes)}")
    quality = evaluate(job.original, recipe.eval_data(), recipe.metric)
    if not math.isfinite(quality):
        raise RecipeError(f"{recipe.source}: metric {recipe.metric.name} gave {quality} over eval_data()")
    job.detail(
        f"{recipe.metric.name} {recipe.metric.describe(quality)} in torch, {len(prunable)} groups of channels and "
        f"{len(branches)} branches to prune"
    )
    return {
        "model_sha256": model_sha256(job.original),
        "metric": recipe.metric.to_dict(),
        "quality": quality,
        "prunable": prunable,
        "branches": branches,
        "notes": list(analysis.notes),
    }


def score(job: Job) -> dict[str, Any]:
    """Rank the channels of each group, and measure how the loss rises as each group is narrowed.

    Raises:
        InfeasibleBudget: the profile tells that no widths meet the budget.
    """
    check_budget(job)
    recipe = job.recipe
    batches = label_batches(job.original, recipe.calibration_data())
    evidence = Evidence(job.original, job.analysis, batches, recipe.loss)
    scores = score_channels(IMPORTANCE, evidence)
    sizes = {group.name: group.size for group in job.analysis.groups}
    nets = sum(len(tried_widths(choices, sizes[group])) for group, choices in job.widths.items())
    lesson = prepare_lesson(job.original, recipe, nets)
    job.detail(f"measuring the loss of {nets} cuts, each trained for {lesson.steps} steps")
    rises = measure_sensitivity(evidence, scores, job.widths, lesson.give_, job.detail)
    return {
        "importance": IMPORTANCE,
        "steps": lesson.steps,
        "scores": {group: [float(value) for value in values] for group, values in scores.items()},
        "loss": {group: {str(width): rise for width, rise in costs.items()} for group, costs in rises.items()},
    }


def read_plan(job: Job) -> PruningPlan:
    """The plan that was fitted on the device."""
    path = job.run.file("plan.json")
    return parse_plan(read_json(path), str(path))


def prune(job: Job) -> dict[str, Any]:
    """Cut the channels that the plan drops, and prove that nothing else changed."""
    example = job.recipe.example_input()
    plan = read_plan(job)
    pruned = apply_plan(job.original, job.analysis, plan.keep)
    error = check_surgery(job.original, job.analysis, plan.keep, pruned, example)
    if error > PROOF_LIMIT:
        raise PlanError(
            f"the cut net differs from the original without those channels by {error:.1e}; nothing was saved"
        )
    save_model(pruned, job.run.product("pruned.pt2"), example)
    job.detail(f"{count_parameters(pruned):,} parameters stay; proof {error:.1e}")
    return {"proof_relative_error": error}


def recover_accuracy(job: Job) -> dict[str, Any]:
    """Re-fit what reads the cut channels, then fine-tune the net, taught by the original."""
    recipe, keep = job.recipe, read_plan(job).keep
    program = load_model(job.run.file("pruned.pt2"))
    reconstruct_(program, job.original, job.analysis, keep, label_batches(job.original, recipe.calibration_data()))
    before = evaluate(program, recipe.eval_data(), recipe.metric)
    program = recover(program, job.original, recipe, job.detail, job.run.path("recover.safetensors"))
    batches = label_batches(job.original, recipe.calibration_data(), STATISTICS_INPUTS)
    program, aware = train_for_int8(job, program, batches)
    program, recalibrated = recalibrate_if_better(program, batches, recipe.loss)
    after = evaluate(program, recipe.eval_data(), recipe.metric)
    save_model(program, job.run.product("recovered.pt2"), recipe.example_input())
    metric, (shown_before, shown_after) = recipe.metric, map(recipe.metric.describe, (before, after))
    job.detail(f"{metric.name} {shown_before} after the cut and re-fitting, {shown_after} after fine-tuning")
    return {
        "quality_before": before if math.isfinite(before) else None,
        "quality": after if math.isfinite(after) else None,
        "recalibrated": recalibrated,
        "quantization_aware": aware,
        "model_sha256": model_sha256(program),
    }


def train_for_int8(
    job: Job, program: GraphModule, batches: Sequence[Batch]
) -> tuple[GraphModule, dict[str, Any] | None]:
    """Train on with the rounding of int8, where the recipe asks for it and the target may ship it."""
    if job.recipe.finetune.quantization_aware_epochs == 0 or job.target.precision not in ROUNDED:
        return program, None
    checkpoint = job.run.path("quantization_aware.safetensors")
    done = train_quantization_aware(program, job.original, job.recipe, batches, job.detail, checkpoint)
    job.detail(
        f"loss of the net rounded to int8 {done.loss_before:.4f}, {done.loss_after:.4f} after quantization-aware "
        f"training: {'kept' if done.kept else 'not kept'}"
    )
    return done.program, {"kept": done.kept, "loss_before": done.loss_before, "loss_after": done.loss_after}
