"""Stages on the net itself: trace it, score its channels, cut it, let it recover."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from edgeprune.core.formats import AUTO, MIXED
from edgeprune.core.planning.plan import PruningPlan, parse_plan
from edgeprune.errors import GraphError, PlanError, RecipeError
from edgeprune.graph.analysis import Analysis
from edgeprune.graph.costs import count_parameters
from edgeprune.graph.groups import find_groups
from edgeprune.graph.precision import widen
from edgeprune.graph.proof import cut_proven
from edgeprune.graph.storage import load_model, model_sha256, save_model
from edgeprune.graph.trace import copy_program, is_dynamic, trace_model
from edgeprune.pruning.evidence import Batch, Evidence
from edgeprune.pruning.fold import fold_weights
from edgeprune.pruning.held_out import Choice, HeldOut, hold_out
from edgeprune.pruning.importance import score_channels
from edgeprune.pruning.lesson import STEPS, prepare_lesson
from edgeprune.pruning.quantization_aware import train_quantization_aware
from edgeprune.pruning.recalibrate import evaluate, recalibrate_if_better
from edgeprune.pruning.reconstruct import reconstruct_
from edgeprune.pruning.recover import Course, Recovered, recover, seed
from edgeprune.pruning.sensitivity import label_batches, measure_sensitivity, tried_widths
from edgeprune.recipes.check import check_recipe
from edgeprune.recipes.fingerprint import hash_batches, hash_code
from edgeprune.recipes.load import Recipe
from edgeprune.recipes.models import describe_precision
from edgeprune.recipes.user_code import describe_error
from edgeprune.run import read_json
from edgeprune.stages.job import Job
from edgeprune.stages.latency import check_budget
from edgeprune.stages.memory import remember
from edgeprune.stages.net import Net, find_width_rules
from edgeprune.stages.open_net import read_net
from edgeprune.stages.results import Pruned, Recovery, Scored, Traced, TrainingStep

FAITHFUL, ROUNDINGS = 1e-3, 64
"""How far a graph may be from its module, relative to the outputs; in shorter floats, in units of the last place."""
IMPORTANCE = "l2"
NOT_PROVEN = (
    "nothing was saved. Please report this; meanwhile a new run may do whose recipe keeps layers whole, as "
    '`widths = {"LAYER": "whole"}`'
)
STATISTICS_INPUTS = 4096
"""Calibration inputs that batch-norm statistics are taken from, if there are so many."""
ROUNDED = ("int8", "dynamic-int8", "int16x8", MIXED, AUTO)
"""Precisions that ship, or may, with int8 weights."""


def trace(job: Job) -> Traced:
    """Build the model, check it, trace it, find its channel groups."""
    recipe = job.recipe
    recipe_notes = check_recipe(recipe)
    program, notes = trace_recipe(recipe)
    save_model(program, job.run.product("original.pt2"), recipe.example_input())
    net = read_net(job)
    analysis = net.analysis
    for fault in analysis.faults:
        job.detail(fault)
    prunable = [group.name for group in analysis.channel_groups]
    branches = [group.name for group in analysis.groups if group.is_branch and not group.frozen]
    require_groups(analysis, recipe)
    net.widths  # noqa: B018  a rule for what cannot be cut is told at once
    quality = evaluate(net.program, recipe.eval_data(), recipe.metric)
    if not math.isfinite(quality):
        raise RecipeError(f"{recipe.source}: metric {recipe.metric.name} gave {quality} over eval_data()")
    standing = hold_out(recipe, net.program)[0].judge(net.program)
    if standing.quality is not None and not math.isfinite(standing.quality):
        raise RecipeError(
            f"{recipe.source}: metric {recipe.metric.name} gave {standing.quality} over the inputs that training is "
            "judged by; give validation_data(), typical inputs with targets"
        )
    job.detail(
        f"{recipe.metric.name} {recipe.metric.describe(quality)} in torch; to prune: {len(prunable)} groups of channels"
        + f", {len(branches)} residual branch{'es' * (len(branches) > 1)}" * bool(branches)
    )
    return Traced(
        model_sha256=model_sha256(net.program),
        metric=recipe.metric.to_dict(),
        quality=quality,
        prunable=tuple(prunable),
        branches=tuple(branches),
        notes=(*notes, *recipe_notes, *analysis.notes),
    )


def trace_recipe(recipe: Recipe) -> tuple[GraphModule, tuple[str, ...]]:
    """The graph of a recipe's model, every float in float32 and every weight plain; and what was changed, for people.

    Raises:
        GraphError: it cannot be traced, takes one batch only, or its graph computes something else than it.
    """
    example = recipe.example_input()
    model, folded = fold_weights(recipe.model())
    program, narrow = widen(trace_model(model, example), example)
    if not is_dynamic(program):
        raise GraphError(
            f"{recipe.source}: model(): its forward works for one number of inputs only; write it without that number: "
            "x.shape[0] or -1 in a view, and no loop over the inputs of a batch"
        )
    _check_output(program, recipe)
    inputs = next(iter(recipe.eval_data()))[0]
    check_graph(program, recipe.model(), inputs, str(recipe.source), narrow)
    notes = [*recipe.model_notes(), *([describe_precision(narrow)] if narrow else [])]
    if folded:
        names = ", ".join(folded[:4]) + (f" and {len(folded) - 4} more" if len(folded) > 4 else "")
        notes.append(f"masks and norms of weights were multiplied out: {names}; training moves the plain weights")
    return program, tuple(notes)


def look_at_recipe(recipe: Recipe) -> tuple[Analysis, tuple[str, ...]]:
    """Check a recipe as a run does before anything slow, and find what of its net can be cut; with notes for people.

    Raises:
        RecipeError: the recipe does not hold together, or its `widths` do not fit the net.
        GraphError: the net cannot be traced, or not be cut.
    """
    recipe_notes = check_recipe(recipe)
    program, model_notes = trace_recipe(recipe)
    analysis = find_groups(program)
    require_groups(analysis, recipe)
    find_width_rules(recipe, analysis)
    return analysis, (*model_notes, *recipe_notes, *analysis.notes)


def require_groups(analysis: Analysis, recipe: Recipe) -> None:
    """Require that something can be pruned.

    Raises:
        PlanError: nothing can; says why.
    """
    if not analysis.channel_groups:
        raise PlanError(f"recipe {recipe.name}: no channel of this net can be pruned: {'; '.join(analysis.notes)}")


def list_groups(analysis: Analysis) -> list[tuple[str, str, str]]:
    """Rows of what can be cut, by the names that a recipe's `widths` know: group, channels, layers of that width."""
    rows = []
    for group in analysis.groups:
        layers = [layer.name for layer in analysis.layers if group.name in layer.cout.groups]
        if not group.frozen:
            rows.append((group.name, "a branch" if group.is_branch else str(group.size), ", ".join(layers)))
    return rows


def _check_output(program: GraphModule, recipe: Recipe) -> None:
    """Require a row for each input, of fixed sizes, whatever the values of the inputs."""
    (output,) = program.graph.find_nodes(op="output")
    (placeholder,) = program.graph.find_nodes(op="placeholder")
    rows, *sizes = output.all_input_nodes[0].meta["val"].shape
    if str(rows) != str(placeholder.meta["val"].shape[0]) or not all(isinstance(size, int) for size in sizes):
        raise GraphError(
            f"{recipe.source}: model(): its output is [{', '.join(map(str, (rows, *sizes)))}]: its size hangs on the "
            "values of the inputs, and a file has fixed sizes; give a row for each input, and select none"
        )


def check_graph(
    program: GraphModule, model: nn.Module, inputs: Tensor, source: str, narrow: Collection[torch.dtype] = ()
) -> None:
    """Require a traced graph to compute what the module does on a batch, as far as floats of its types agree.

    Raises:
        GraphError: it does not.
    """
    try:
        with torch.no_grad():
            expected, outputs = model(inputs).double(), program(inputs).double()
    except RuntimeError as exc:
        raise GraphError(
            f"{source}: model(): its graph does not run on {len(inputs)} inputs ({describe_error(exc)}): the forward "
            "decides by the number of inputs; write it without that"
        ) from exc
    tolerance = max([FAITHFUL, *(ROUNDINGS * torch.finfo(kind).eps for kind in narrow)])
    error = float((expected - outputs).norm() / expected.norm().clamp(min=1e-30))
    if not error <= tolerance:
        raise GraphError(
            f"{source}: model(): its graph differs from it by {error:.2g} of the outputs of {len(inputs)} inputs: the "
            "forward depends on something beside its input, such as what it has kept from calls before"
        )


def score(job: Job) -> Scored:
    """Rank the channels of each group, and measure how the loss rises as each group is narrowed.

    Raises:
        InfeasibleBudget: the profile tells that no widths meet the budget.
    """
    net = read_net(job)
    check_budget(job, net)
    scored, is_recalled = remember(
        job, Scored, _score_reads(job, net), lambda: _measure_scores(job, net), lambda _: True
    )
    if not is_recalled:
        return scored
    job.detail(
        f"an earlier run has scored this net on these data by this recipe, each cut trained for {scored.steps} steps; "
        "--fresh scores anew"
    )
    return replace(scored, recalled=True)


def _score_reads(job: Job, net: Net) -> dict[str, Any]:
    """All that scores hang on; of the training data, the batches that cut nets are trained on.

    The loss of the net on one batch tells of what else the loss may read: weights of classes, a teacher.
    """
    recipe = job.recipe
    (inputs, targets), *_ = label_batches(net.program, recipe.calibration_data(), 1)
    with torch.no_grad():
        loss = float(recipe.loss(net.program(inputs), targets))
    seed(0)
    return {
        "edgeprune": version("edgeprune"),
        "torch": torch.__version__,
        "model": job.read(Traced).model_sha256,
        "widths": net.widths,
        "importance": IMPORTANCE,
        "code": hash_code(recipe.source),
        "loss": repr(loss),
        "train_data": hash_batches(recipe.train_data(), STEPS),
        "calibration_data": hash_batches(recipe.calibration_data()),
    }


def _measure_scores(job: Job, net: Net) -> Scored:
    recipe = job.recipe
    batches = label_batches(net.program, recipe.calibration_data())
    evidence = Evidence(net.program, net.analysis, batches, recipe.loss)
    scores = score_channels(IMPORTANCE, evidence)
    sizes = {group.name: group.size for group in net.analysis.groups}
    nets = sum(len(tried_widths(choices, sizes[group])) for group, choices in net.widths.items())
    lesson = prepare_lesson(net.program, recipe, nets, job.accelerator)
    job.detail(f"measuring the loss of {nets} cuts, each trained for {lesson.steps} steps")
    rises = measure_sensitivity(evidence, scores, net.widths, lesson.give_, job.detail)
    return Scored(
        importance=IMPORTANCE,
        steps=lesson.steps,
        scores={group: tuple(float(value) for value in values) for group, values in scores.items()},
        loss=rises,
    )


def read_plan(job: Job) -> PruningPlan:
    """The plan that was fitted on the device."""
    path = job.run.file("plan.json")
    return parse_plan(read_json(path), str(path))


def prune(job: Job) -> Pruned:
    """Cut the channels that the plan drops, and prove that nothing else changed."""
    net, example = read_net(job), job.recipe.example_input()
    plan = read_plan(job)
    pruned, error = cut_proven(net.program, net.analysis, plan.keep, example, NOT_PROVEN)
    save_model(pruned, job.run.product("pruned.pt2"), example)
    proof = f"within {error:.1e}" if error else "exactly"
    job.detail(
        f"{count_parameters(pruned):,} of {count_parameters(net.program):,} parameters stay, those of batch norm "
        f"counted; proven: it computes {proof} what the whole net does without these channels"
    )
    return Pruned(proof_relative_error=error)


def recover_accuracy(job: Job) -> Recovery:
    """Re-fit what reads the cut channels, then fine-tune the net, taught by the original; the best state is kept."""
    net, recipe = read_net(job), job.recipe
    held_out, fitted = hold_out(recipe, net.program)
    program, steps = refit(job, net, load_model(job.run.file("pruned.pt2")), held_out, fitted)
    before = evaluate(program, recipe.eval_data(), recipe.metric)
    course = Course(job.run.path("recover.safetensors"), held_out=held_out, device=job.accelerator)
    recovered = recover(program, net.program, recipe, job.detail, course)
    steps.append(describe_step("fine-tuning", recovered))
    program, aware = train_for_int8(job, net, recovered.program, held_out)
    steps += aware
    batches = label_batches(net.program, recipe.calibration_data(), STATISTICS_INPUTS)
    program, recalibrated = recalibrate_if_better(program, batches, recipe.loss)
    after = evaluate(program, recipe.eval_data(), recipe.metric)
    save_model(program, job.run.product("recovered.pt2"), recipe.example_input())
    metric, (shown_before, shown_after) = recipe.metric, map(recipe.metric.describe, (before, after))
    job.detail(f"{metric.name} {shown_before} after the cut and re-fitting, {shown_after} after fine-tuning")
    notes = [say_step(step, held_out) for step in steps]
    if metric.drop(after, before) > 0:
        notes.append(
            f"on eval_data() {metric.name} is {shown_before} before fine-tuning and {shown_after} after it: give "
            "validation_data(), or change finetune"
        )
    for note in notes:
        job.detail(note)
    return Recovery(
        quality_before=before if math.isfinite(before) else None,
        quality=after if math.isfinite(after) else None,
        recalibrated=recalibrated,
        held_out={"source": held_out.source, "inputs": held_out.inputs},
        steps=tuple(steps),
        notes=tuple(notes),
        model_sha256=model_sha256(program),
    )


def refit(
    job: Job, net: Net, program: GraphModule, held_out: HeldOut, fitted: Sequence[Batch]
) -> tuple[GraphModule, list[TrainingStep]]:
    """The net with the layers re-fitted that read what is cut, if it is better so; and what is to be said of it."""
    choice, trial = Choice(held_out), copy_program(program)
    choice.offer_(held_out.judge(program))
    reconstruct_(trial, net.program, net.analysis, read_plan(job).keep, fitted)
    best = trial if choice.offer_(held_out.judge(trial)) else program
    return best, [describe_step("re-fitting", Recovered(best, tuple(choice.standings), choice.kept))]


def train_for_int8(
    job: Job, net: Net, program: GraphModule, held_out: HeldOut
) -> tuple[GraphModule, list[TrainingStep]]:
    """Train on with the rounding of int8, where the recipe asks for it and the target may ship it."""
    if job.recipe.finetune.quantization_aware_epochs == 0 or job.target.precision not in ROUNDED:
        return program, []
    course = Course(job.run.path("quantization_aware.safetensors"), held_out=held_out, device=job.accelerator)
    recovered = train_quantization_aware(program, net.program, job.recipe, job.detail, course)
    return recovered.program, [describe_step("quantization-aware training, rounded to int8", recovered)]


def describe_step(name: str, recovered: Recovered) -> TrainingStep:
    """Which of a step's states was kept, as the run keeps it: 0 is the one before, then one for each epoch."""
    rows = tuple(standing.to_dict() for standing in recovered.standings)
    return TrainingStep(step=name, kept=recovered.kept, states=max(0, len(rows) - 1), standings=rows)


def say_step(step: TrainingStep, held_out: HeldOut) -> str:
    """For people: which state of a step ships, and how it does beside the one before."""
    if not step.standings:
        return f"{step.step}: none, as the recipe asks for no epochs"
    index, last = step.kept, step.states
    state = "the net as it was before" if not index else "its result" if last == 1 else f"epoch {index} of {last}"
    figures = "; ".join(
        f"{name} {held_out.say(step.standings[number])}"
        for name, number in {"before": 0, "then": index or last}.items()
    )
    return f"{step.step}: {state} is kept ({figures}, on {held_out.description})"
