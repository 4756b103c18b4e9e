"""Stages that ask the device what things cost: the latency profile, and the plan fitted to what is measured."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from torch.fx import GraphModule

from edgeprune.core.artifact import Artifact
from edgeprune.core.cost import cost_name, say_cost, show_cost
from edgeprune.core.formats import AUTO, RUNTIMES, find_runtime
from edgeprune.core.latency.confidence import safe_budget_ms, spread_of_interval
from edgeprune.core.latency.correction import Correction, fit_correction
from edgeprune.core.latency.table import (
    ESTIMATED,
    FOREIGN,
    LatencyTable,
    describe_net,
    keep_families,
    parse_table,
    render_table,
)
from edgeprune.core.planning.candidates import draw_variants, probe_shapes
from edgeprune.core.planning.limits import count_costs, stated_bytes
from edgeprune.core.planning.loop import AIM, Goal, Trial, choose_fitting, fit_to_budget, recreate_goal, say_next
from edgeprune.core.planning.plan import NOTHING_CUT, GroupPlan, PruningPlan, explain_width, find_gone
from edgeprune.core.planning.planner import Choice, Problem, choose_widths, find_fastest, predict_ms, trace_front
from edgeprune.core.planning.reach import Reach, check_reach
from edgeprune.core.progress import Count
from edgeprune.core.releasing.shipping import choose_planned
from edgeprune.device.board import ModelFile
from edgeprune.errors import ExportError, MissingExtra
from edgeprune.graph.costs import list_shapes
from edgeprune.graph.surgery import apply_plan
from edgeprune.pruning.importance import keep_best_by_group
from edgeprune.run import hash_file, write_atomic, write_json
from edgeprune.shipped import load_estimate
from edgeprune.stages.arena import learn_from_plan
from edgeprune.stages.artifacts import Files, build, build_format, build_variant
from edgeprune.stages.explanation import write_explained_plan
from edgeprune.stages.job import CHOSEN, Job
from edgeprune.stages.limits import find_limits
from edgeprune.stages.memory import remember
from edgeprune.stages.net import Net
from edgeprune.stages.open_net import read_net
from edgeprune.stages.power import learn_power
from edgeprune.stages.record import baseline_name, read_originals
from edgeprune.stages.results import Fitted, Planned, Profiled, Scored, Traced, Try, Variant
from edgeprune.stages.table import find_table
from edgeprune.stages.timing import TWIN_TOLERANCE, NetTimes, time_nets

VARIANTS = 24
VARIANT_SEED = 7
UNTIMED = 100.0
"""Times the unpruned net's latency: more than any cut net takes, for runs whose budget says nothing of time."""
FRONT = 10
"""Budgets at which the front of loss against latency is looked at."""
NOT_MEASURED = "estimated: no board was measured; this plan serves to look ahead and never passes a gate"


def profile(job: Job) -> Profiled:
    """What layers cost on the device, and how their sum relates to whole nets there."""
    net = read_net(job)
    if job.estimated:
        return _estimate(job, net)
    profiled, is_recalled = remember(
        job, Profiled, _profile_reads(job, net), lambda: _measure_profile(job, net), _is_undisturbed
    )
    if not is_recalled:
        return profiled
    job.detail(
        f"unpruned {profiled.baseline_precision} {say_cost(profiled.baseline_ms)}, measured with all else "
        f"{profiled.measured_at} by an earlier run on this device; --fresh measures anew"
    )
    return replace(profiled, device=job.board.facts, recalled=True)


def _profile_reads(job: Job, net: Net) -> dict[str, Any]:
    """All that a profile hangs on."""
    target, request, recipe = job.target, job.run.request, job.recipe
    aside = ("name", "description", "budget", "gates", "hardware", "file", "python", "flash")
    return {
        "edgeprune": version("edgeprune"),
        "device": job.board.facts.fingerprint,
        "target": {name: value for name, value in asdict(target).items() if name not in aside},
        "has_energy": target.budget.energy_mj is not None,
        "model": job.read(Traced).model_sha256,
        "widths": net.widths,
        "formats": job.formats,
        "metadata": [recipe.name, recipe.labels, recipe.preprocessing],
        "minutes": request.get("minutes"),
        "table": hash_file(Path(request["table"])) if request.get("table") else None,
        "set_governor": bool(request.get("set_governor")),
    }


def _is_undisturbed(profiled: Profiled) -> bool:
    """Whether nothing else worked on the board meanwhile, so that other runs may rest on it."""
    return not profiled.problems and profiled.twin_gap <= TWIN_TOLERANCE


def _measure_profile(job: Job, net: Net) -> Profiled:
    _choose_plan(job, net)
    precisions = tuple(dict.fromkeys(("fp32", job.baseline_precision)))
    originals = build(job, net.program, Files(job.run.directory, "original", job.formats, precisions, tuned=True))
    begun = time.monotonic()
    table = keep_families(find_table(job, net), probe_shapes(net.layers, net.widths))
    layers_s = time.monotonic() - begun
    variants = draw_nets(net, table, VARIANTS, VARIANT_SEED)
    job.detail(f"measuring {len(variants)} whole nets of random widths")
    files = dict[str, Path]()
    for i, widths in enumerate(variants):
        files[f"variant{i}"] = build_variant(job, f"variant{i}", cut_net(net, widths))
        job.detail(Count(f"nets built: {i + 1} of {len(variants)}"))
    begun = time.monotonic()
    times = measure_beside_original(job, originals, files)
    nets_s = time.monotonic() - begun
    latency_ms = times.latency_ms
    nets = [
        describe_net(table, net.layers, widths, latency_ms[name]) for name, widths in zip(files, variants, strict=True)
    ]
    correction = fit_correction(nets, times.twin_gap)
    whole = count_costs(net.analysis.layers, variants[0], job.planned.fitted_precision)
    write_atomic(job.run.product("latency_table.json"), render_table(table))
    job.run.product(unpruned_file(job))
    if job.chosen:
        job.run.product(CHOSEN)
    baseline_ms = latency_ms["baseline"]
    job.detail(
        f"unpruned {job.baseline_precision} {say_cost(baseline_ms)}; {len(table.points)} layer shapes; whole nets "
        f"predicted with a mean error of {correction.error or 0:.1%} (leave one out)"
        + ("" if job.is_counted else f"; the same net twice: {times.twin_gap:.1%} apart")
    )
    return Profiled(
        device=job.board.facts,
        baseline_ms=baseline_ms,
        twin_gap=times.twin_gap,
        problems=times.problems,
        correction=correction,
        baseline_predicted_ms=_predict_full(job, net, table, correction),
        power_w=learn_power(job, files, latency_ms),
        seconds={"layers": layers_s, "nets": nets_s},
        overhead_bytes=max(0, files["variant0"].stat().st_size - whole.weight_bytes)
        + stated_bytes(net.analysis.layers, job.planned.fitted_precision),
        originals=originals,
        variants=tuple(Variant(widths=widths, net=measured) for widths, measured in zip(variants, nets, strict=True)),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        baseline_precision=job.baseline_precision,
        unit=job.unit,
    )


def _choose_plan(job: Job, net: Net) -> None:
    """Settle which runtime and precision to plan for, where the target leaves one open: by the unpruned net on the
    device.

    Raises:
        DeviceError: the board has none of the runtimes that files can be made for here.
        ExportError: the net cannot be exported for any of them.
    """
    target = job.target
    if AUTO not in (target.precision, target.runtime) or job.chosen:
        return
    precisions = ("fp32", "int8") if target.precision == AUTO else (target.fitted_precision,)
    files = {
        (runtime, artifact.precision): job.run.path(artifact.path)
        for runtime, artifacts in _build_open(job, net, precisions).items()
        for artifact in artifacts
    }
    nets = [ModelFile.of(path, runtime, f"{runtime} {precision}") for (runtime, precision), path in files.items()]
    ms_by_name = dict(time_nets(job, nets).latency_ms)
    latency_ms = {key: ms_by_name[" ".join(key)] for key in files}
    runtime, precision = choose_planned(latency_ms, precisions)
    baseline, _ = choose_planned(latency_ms, ("fp32",))
    planned_precision = precision if target.precision == AUTO else target.precision
    document = {"runtime": runtime, "precision": planned_precision, "baseline": baseline, "latency_ms": ms_by_name}
    write_json(job.run.product(CHOSEN), document)
    figures = ", ".join(f"{name} {ms:.4g} ms" for name, ms in ms_by_name.items())
    job.detail(f"unpruned: {figures}; planning for {runtime} {planned_precision}")


def _build_open(job: Job, net: Net, precisions: Sequence[str]) -> dict[str, tuple[Artifact, ...]]:
    """The unpruned net in fp32 and in some precisions, by each open runtime that the board has."""
    artifacts, problems = dict[str, tuple[Artifact, ...]](), list[str]()
    for runtime in job.target.runtimes:
        file_format = RUNTIMES[runtime].format
        if len(job.target.runtimes) > 1 and (file_format not in job.formats or not job.board.runtime_version(runtime)):
            problems.append(f"{runtime} is not here or not on the board")
            continue
        files = Files(job.run.directory, "original", (file_format,), tuple(dict.fromkeys(("fp32", *precisions))))
        try:
            same = find_runtime(file_format, artifacts)
            artifacts[runtime] = artifacts[same] if same else build_format(job, net.program, files, file_format)
        except ExportError as exc:
            problems.append(f"{runtime}: {exc}")
    if not artifacts:
        raise ExportError(f"target {job.target.name}: no runtime can run this net: {'; '.join(problems)}")
    for problem in problems:
        job.detail(problem)
    return artifacts


def _estimate(job: Job, net: Net) -> Profiled:
    """What layers cost by the target's estimated profile; the unpruned net in fp32, on a microcontroller in int8."""
    target = job.target
    board = load_estimate(target)
    profile = board.choose(target.runtime, target.layer_precision, target.threads)
    table, shapes = profile.tabulate(probe_shapes(net.layers, net.widths)), list_shapes(net.analysis, {})
    precision = board.baseline_precision
    baseline = board.choose(target.runtime, precision, target.threads).predict_net(shapes)
    parts_ms = sum(profile.predict(layer.shape).latency_ms for layer in net.layers)
    beside = Correction(offset_ms=profile.predict_net(shapes).latency_ms - parts_ms)
    write_atomic(job.run.product("latency_table.json"), render_table(table))
    job.detail(
        f"estimated, not measured: unpruned {precision} {baseline.latency_ms:.4g} ms (90 % interval "
        f"{baseline.low_ms:.4g} to {baseline.high_ms:.4g}), {board.description}"
    )
    return Profiled(
        origin=ESTIMATED,
        baseline_ms=baseline.latency_ms,
        baseline_interval_ms=(baseline.low_ms, baseline.high_ms),
        correction=beside,
        baseline_predicted_ms=baseline.latency_ms,
        baseline_precision=precision,
    )


def draw_nets(net: Net, table: LatencyTable, count: int, seed: int) -> list[dict[str, int]]:
    """Random widths of whole nets, the unpruned one first, spread over all prices."""

    def price(widths: Mapping[str, int]) -> float:
        return table.predict_net([layer.at(widths) for layer in net.layers], Correction()).latency_ms

    return draw_variants(net.widths, price, count, seed)


def _predict_full(job: Job, net: Net, table: LatencyTable, correction: Correction) -> float | None:
    """Predicted ms of the unpruned net, where the table is of its precision."""
    if job.planned.fitted_precision != job.baseline_precision:
        return None
    return table.predict_net([layer.shape for layer in net.layers], correction).latency_ms


def cut_net(net: Net, widths: Mapping[str, int]) -> GraphModule:
    """An untrained net of these widths: latency does not depend on which channels stay."""
    return apply_plan(net.program, net.analysis, {group: range(width) for group, width in widths.items()})


def unpruned_file(job: Job) -> str:
    """The unpruned net in the precision that is planned for: the first of the nets that the profile measured.

    Its name within the run.
    """
    planned = job.planned
    return f"variants/variant0/artifacts/pruned.{planned.fitted_precision}.{planned.format}"


def measure_beside_original(job: Job, originals: Sequence[Artifact], files: Mapping[str, Path]) -> NetTimes:
    """Latency of nets that take turns with the unpruned fp32 one, which is called "baseline"."""
    baseline = next(artifact for artifact in originals if artifact.name == baseline_name(job))
    unpruned = ModelFile.of(job.run.file(baseline.path), job.baseline_runtime, "baseline")
    return time_nets(job, [unpruned, *(ModelFile.of(path, job.planned.runtime, name) for name, path in files.items())])


def read_table(job: Job) -> LatencyTable:
    """The latency table that the profile has saved."""
    path = job.run.file("latency_table.json")
    return parse_table(path.read_text(), str(path))


def read_correction(job: Job) -> Correction:
    """How the table's layers add up to whole nets, as the profile has found."""
    return job.read(Profiled).correction


def read_problem(job: Job, net: Net) -> Problem:
    """What the planner works on, from the saved profile and scores."""
    return Problem(net.layers, job.read(Scored).loss, read_table(job), read_correction(job), find_limits(job, net))


def budget_ms(job: Job, baseline_ms: float) -> float:
    """The latency budget in ms, beside an unpruned fp32 net that takes `baseline_ms`; without a budget of time a limit
    that decides nothing.
    """
    if not job.target.budget.is_timed:
        return UNTIMED * baseline_ms
    return job.target.budget.limit_ms(baseline_ms, job.read(Profiled).power_w)


def check_budget(job: Job, net: Net) -> None:
    """Refuse a budget that no widths meet by what was profiled, before anything is scored.

    Raises:
        InfeasibleBudget: says the best that can be reached, and what to do.
    """
    profiled = job.read(Profiled)
    free = {group: dict.fromkeys(widths, 0.0) for group, widths in net.widths.items()}
    problem = Problem(net.layers, free, read_table(job), read_correction(job), find_limits(job, net))
    whole = {group: widths[-1] for group, widths in problem.widths.items()}
    reach = Reach(
        limit_ms=budget_ms(job, profiled.baseline_ms),
        aim=first_aim(job),
        fastest_ms=find_fastest(problem).latency_ms,
        unpruned_ms=predict_ms(problem, whole),
        baseline_ms=profiled.baseline_ms,
        precision=job.planned.fitted_precision,
        limits=problem.limits,
        baseline_precision=profiled.baseline_precision,
    )
    check_reach(reach)


def plan(job: Job) -> Planned:
    """Choose the widths: the least predicted loss within the budget, proven."""
    net = read_net(job)
    problem = read_problem(job, net)
    limit = budget_ms(job, job.read(Profiled).baseline_ms)
    choice = choose_widths(problem, first_aim(job) * limit)
    while learn_from_plan(job, net, choice.widths):
        problem = read_problem(job, net)
        choice = choose_widths(problem, first_aim(job) * limit)
    pruning_plan = _make_plan(job, net, problem, choice)
    write_atomic(job.run.product("plan.first.json"), pruning_plan.to_json())
    _draw_front(job, problem, choice)
    aim = f"for a budget of {say_cost(limit)}" if job.target.budget.is_timed else f"and no budget of {cost_name()}"
    job.detail(f"predicted {say_cost(choice.latency_ms)} {aim}, gap {choice.gap:.2%}")
    if problem.limits.arena is not None:
        job.detail(problem.limits.arena.describe(choice.widths))
    return Planned(plan=pruning_plan)


def first_aim(job: Job) -> float:
    """The share of the budget to plan for before any cut net is measured.

    Raises:
        PlanError: a confidence was asked for, and too few nets were measured to know how far predictions lie off.
    """
    confidence, profiled = job.target.budget.confidence, job.read(Profiled)
    if confidence is None:
        return AIM
    interval_ms = profiled.baseline_interval_ms
    spread = spread_of_interval(profiled.baseline_ms, interval_ms[1]) if interval_ms else profiled.correction.spread
    return safe_budget_ms(1.0, spread, confidence)


def _draw_front(job: Job, problem: Problem, choice: Choice) -> None:
    """Write the best loss rises at other budgets, as `front.json` and a picture."""
    origin = "estimated" if job.estimated else "predicted from measured layers"
    front = [
        {"latency_ms": point.latency_ms, "loss_increase": point.loss_increase} for point in trace_front(problem, FRONT)
    ]
    chosen = {"latency_ms": choice.latency_ms, "loss_increase": choice.loss_increase}
    document = {"origin": origin, "unit": job.unit, "front": front, "chosen": chosen}
    write_json(job.run.product("front.json"), document)
    try:
        from edgeprune.report.pictures import draw_front, render_png
    except MissingExtra as exc:
        job.detail(f"no picture of it: {exc}")
        return
    picture = draw_front(document, f"{job.recipe.name} on {job.target.name}")
    write_atomic(job.run.path("front.png"), render_png(picture))


def _make_plan(job: Job, net: Net, problem: Problem, choice: Choice) -> PruningPlan:
    scored, limit = job.read(Scored), budget_ms(job, job.read(Profiled).baseline_ms)
    groups = {group.name: group for group in net.analysis.groups}
    scores = {group: np.asarray(values) for group, values in scored.scores.items()}
    gone, entries = find_gone(net.analysis.layers, choice.widths), []
    is_cut = any(width < groups[group].size for group, width in choice.widths.items())
    for group, keep in keep_best_by_group(scores, choice.widths).items():
        kind, size, width = groups[group].kind, groups[group].size, choice.widths[group]
        saved_ms = predict_ms(problem, {**choice.widths, group: size}) - choice.latency_ms
        basis = "cut to its shortcut" if groups[group].is_branch else f"highest {scored.importance} scores kept"
        offered, is_fixed = net.widths[group], group in problem.limits.fixed
        saving = f"saves {show_cost(saved_ms, '.3g')} {job.unit}; {basis}" if is_cut else ""
        reason = explain_width(groups[group], width, offered, is_fixed, saving)
        reason = f"gone with {gone[group]}" if group in gone else reason
        entries.append(GroupPlan(group, size, keep, problem.loss[group][width], reason, kind, gone.get(group, "")))
    return PruningPlan(
        tuple(entries),
        job.read(Traced).model_sha256,
        choice.latency_ms,
        limit if job.target.budget.is_timed else None,
        choice.loss_increase,
        choice.gap,
        (*_uncut(job, is_cut), *((NOT_MEASURED,) if job.estimated else _foreign(problem.table))),
        job.unit,
    )


def _uncut(job: Job, is_cut: bool) -> tuple[str, ...]:
    """What is said of a plan that cuts nothing."""
    return () if is_cut else (f"{NOTHING_CUT}: in {job.planned.fitted_precision} the whole net meets the budget",)


def _foreign(table: LatencyTable | None) -> tuple[str, ...]:
    made_for = None if table is None else table.conditions.get(FOREIGN)
    return () if made_for is None else (f"planned by a latency table made for {made_for}",)


def fit(job: Job) -> Fitted:
    """Measure the cut net before any training; while it misses the budget, correct the predictions and plan again.

    Latency does not depend on the weights, so a net that misses its budget is found before it is trained.
    """
    if job.estimated:
        pruning_plan = job.read(Planned).plan
        write_atomic(job.run.product("plan.json"), pruning_plan.to_json())
        write_explained_plan(job, pruning_plan, *find_first_goal(job))
        return Fitted(plan=pruning_plan, origin=ESTIMATED)
    net, profiled = read_net(job), job.read(Profiled)
    problem = read_problem(job, net)
    nets = [variant.net for variant in profiled.variants]
    goal, names = Goal(budget_ms(job, profiled.baseline_ms), first_aim(job)), (f"try{number}" for number in count())
    trials = fit_to_budget(problem, nets, goal, lambda choice: _measure_try(job, net, choice, next(names)))
    best = choose_fitting(trials)
    if learn_from_plan(job, net, best.choice.widths):
        return fit(job)
    pruning_plan = _make_plan(job, net, problem, best.choice)
    final_plan = replace(
        pruning_plan, notes=(*pruning_plan.notes, f"measured {best.share:.1%} of the budget before training")
    )
    write_atomic(job.run.product("plan.json"), final_plan.to_json())
    write_explained_plan(job, final_plan, *recreate_goal(problem, nets, goal, trials[: trials.index(best)]))
    return Fitted(plan=final_plan, tries=tuple(_describe_try(trial) for trial in trials), unit=job.unit)


def find_first_goal(job: Job) -> tuple[Problem, float]:
    """What a plan is made by before any cut net is measured: the problem, and the predicted ms it is held to."""
    return read_problem(job, read_net(job)), first_aim(job) * budget_ms(job, job.read(Profiled).baseline_ms)


def _describe_try(trial: Trial) -> Try:
    return Try(
        predicted_ms=trial.choice.latency_ms,
        measured_ms=trial.measured_ms,
        share_of_budget=trial.share,
        loss_increase=trial.choice.loss_increase,
    )


def _measure_try(job: Job, net: Net, choice: Choice, name: str) -> float:
    """Latency in ms of a cut net, as it would have been when the net was profiled."""
    limit = budget_ms(job, job.read(Profiled).baseline_ms)
    path = build_variant(job, name, cut_net(net, choice.widths))
    latency_ms = measure_beside_original(job, read_originals(job), {name: path}).latency_ms
    share = latency_ms[name] / budget_ms(job, latency_ms["baseline"])
    job.detail(f"measured {say_cost(latency_ms[name])} untrained, {share:.1%} of the budget{say_next(share)}")
    return share * limit
