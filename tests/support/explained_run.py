"""A run directory with a real small net, traced and cut, on a made-up device: explained without a board in seconds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from measured_run import FACTS, make_measurement
from recorded import record_stage

from edgeprune.core.latency.correction import Correction
from edgeprune.core.latency.table import LatencyPoint, LatencyTable, TableKey, render_table
from edgeprune.core.planning.candidates import probe_shapes
from edgeprune.core.planning.limits import Costs
from edgeprune.core.planning.plan import GroupPlan, PruningPlan, find_gone
from edgeprune.core.planning.planner import Choice, Problem, choose_widths
from edgeprune.deployment import REQUEST
from edgeprune.graph.storage import load_model
from edgeprune.pruning.importance import keep_best_by_group
from edgeprune.run import Run, open_run, write_json
from edgeprune.stages.artifacts import Files, build
from edgeprune.stages.explanation import write_explained_plan
from edgeprune.stages.job import Job
from edgeprune.stages.latency import read_problem
from edgeprune.stages.model import prune, trace
from edgeprune.stages.net import Net
from edgeprune.stages.open_net import read_net
from edgeprune.stages.results import (
    Confirmed,
    Exported,
    Fitted,
    Measured,
    Profiled,
    Pruned,
    Recovery,
    Result,
    Scored,
    Traced,
    Try,
    run_stage,
)

IMAGES = """
import torch
from prune_nets import TinyResidual, stripes
from edgeprune.recipes.data import Batches
labels = ["top", "left", "noise"]
def model():
    torch.manual_seed(0)
    net = TinyResidual()
    images, targets = stripes(256)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(images), targets).backward()
        optimizer.step()
    return net
def train_data():
    return Batches(*stripes(64, 1), 32)
def eval_data():
    return Batches(*stripes(96, 2), 32)
def calibration_data():
    return Batches(*stripes(64, 3), 32)
"""
SIGNALS = """
import torch
from torch import nn
from edgeprune.core.metric import Metric
from edgeprune.recipes.data import Batches
def rmse(outputs, targets):
    return float(((outputs - targets) ** 2).mean() ** 0.5)
metric = Metric("RMSE", rmse, better="lower", unit="K")
loss = nn.functional.mse_loss
def rows(count, seed):
    signals = torch.randn(count, 2, 16, generator=torch.Generator().manual_seed(seed))
    return signals, signals.mean((1, 2))[:, None]
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv1d(8, 8, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(8 * 16, 1),
    )
def train_data():
    return Batches(*rows(64, 1), 32)
def eval_data():
    return Batches(*rows(64, 2), 32)
calibration_data = train_data
"""
STAGES = ("fit", "recover", "measure")
Say = Callable[[str], None]


def record_explained_run(
    folder: Path, recipe: str = IMAGES, until: str = "measure", budget: float = 0.6, explain: bool = True
) -> Path:
    """Let the line have run until "fit", "recover" or "measure", with a budget of so many times the unpruned ms.

    `explain`: the stage `fit` explained its plan, as those of earlier versions did not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "board.toml").write_text(f'description = "a board"\nstep = 2\n[budget]\nspeedup = {1 / budget}\n')
    (folder / "mine.py").write_text(recipe)
    request = {**dict.fromkeys(REQUEST), "target": str(folder / "board.toml"), "recipe": str(folder / "mine.py")}
    with open_run(folder, request) as run, ExitStack() as stack:
        run.begin()
        job = Job(run, lambda _: None, stack)
        run_stage(run, Traced, partial(trace, job))
        net = read_net(job)
        _record(run, "profile", _profile(job, net), {"latency_table.json": render_table(_make_table(net))})
        record_stage(run, "score", _score(net))
        _plan(job, net, budget, explain)
        if until != "fit":
            _recover(job)
        if until == "measure":
            _measure(job, net)
    return folder


def _record(run: Run, name: str, result: Result, texts: dict[str, str]) -> None:
    for path, text in texts.items():
        run.path(path).write_text(text)
    record_stage(run, name, result, list(texts))


def _make_table(net: Net) -> LatencyTable:
    """Layers take a microsecond, and more for each pair of blocks of 4 channels."""
    shapes = sorted(probe_shapes(net.layers, net.widths))
    points = [LatencyPoint(shape, 1e-3 + 1e-3 * -(-shape.cin // 4) * -(-shape.cout // 4), 0, 1) for shape in shapes]
    return LatencyTable(TableKey(FACTS.fingerprint, "onnxruntime", "1.0", "fp32", 2), tuple(points))


def _profile(job: Job, net: Net) -> Profiled:
    table, correction = _make_table(net), Correction(offset_ms=0.002)
    baseline_ms = table.predict_net([layer.shape for layer in net.layers], correction).latency_ms
    return Profiled(baseline_ms=baseline_ms, baseline_predicted_ms=baseline_ms, device=FACTS, correction=correction)


def _score(net: Net) -> Scored:
    """A cut of a channel costs 1, of a branch 0.5; scores are random."""
    generator, sizes = np.random.default_rng(1), {group.name: group.size for group in net.analysis.groups}
    loss = {
        group: {width: (sizes[group] - width) * (0.5 if sizes[group] == 1 else 1.0) for width in widths}
        for group, widths in net.widths.items()
    }
    scores = {group: tuple(map(float, generator.random(sizes[group]))) for group in loss}
    return Scored(importance="l2", steps=3, scores=scores, loss=loss)


def _plan(job: Job, net: Net, budget: float, explain: bool) -> None:
    problem = read_problem(job, net)
    cap_ms = budget * job.read(Profiled).baseline_ms
    choice = choose_widths(problem, cap_ms)
    plan = _make_plan(job, net, problem, choice, cap_ms)

    def compute() -> dict[str, object]:
        from edgeprune.stages.results import to_document

        job.run.product("plan.json").write_text(plan.to_json())
        if explain:
            write_explained_plan(job, plan, problem, cap_ms)
        attempt = Try(predicted_ms=choice.latency_ms, measured_ms=1.01 * choice.latency_ms, share_of_budget=1.0)
        return to_document(Fitted(plan=plan, tries=(attempt,)))

    job.run.stage("fit", compute)


def _make_plan(job: Job, net: Net, problem: Problem, choice: Choice, cap_ms: float) -> PruningPlan:
    scores = {group: np.asarray(values) for group, values in job.read(Scored).scores.items()}
    gone, groups = find_gone(net.analysis.layers, choice.widths), {group.name: group for group in net.analysis.groups}
    entries = tuple(
        GroupPlan(
            name,
            groups[name].size,
            keep,
            problem.loss[name][len(keep)],
            "a test",
            groups[name].kind,
            gone.get(name, ""),
        )
        for name, keep in keep_best_by_group(scores, choice.widths).items()
    )
    digest = job.read(Traced).model_sha256
    return PruningPlan(entries, digest, choice.latency_ms, cap_ms, choice.loss_increase, choice.gap)


def _recover(job: Job) -> None:
    run_stage(job.run, Pruned, partial(prune, job))
    (job.run.directory / "recovered.pt2").write_bytes((job.run.directory / "pruned.pt2").read_bytes())
    record_stage(job.run, "recover", Recovery(quality_before=job.read(Traced).quality, quality=1.0), ["recovered.pt2"])


def _measure(job: Job, net: Net) -> None:
    """Real ONNX files, and made-up times: the pruned one takes 1 % more than what was planned."""
    directory, run = job.run.directory, job.run
    pruned = load_model(directory / "recovered.pt2")
    files = [
        *build(job, net.program, Files(directory, "original", ("onnx",), ("fp32",))),
        *build(job, pruned, Files(directory, "pruned", ("onnx",), ("fp32",))),
    ]
    places = [file.path for file in files]
    record_stage(
        run,
        "export",
        Exported(artifacts=tuple(files), costs=dict.fromkeys(map(_name, files), Costs(1, 1, 1, 1))),
        places,
    )
    profiled, plan = job.read(Profiled), job.read(Fitted).plan
    assert plan.predicted_ms is not None
    times = dict(zip(map(_name, files), (2 * profiled.baseline_ms, 2.02 * plan.predicted_ms), strict=True))
    rows = {name: make_measurement(name, file.sha256, times[name]) for name, file in zip(times, files, strict=True)}
    write_json(directory / "measurements.json", {name: row.to_dict() for name, row in rows.items()})
    record_stage(run, "measure", Measured(quality=dict.fromkeys(times, 50.0), samples=96), ["measurements.json"])
    write_json(directory / "confirmed.json", {})
    record_stage(run, "confirm", Confirmed(artifact="", sessions=1), ["confirmed.json"])


def _name(artifact: object) -> str:
    return str(artifact.name)  # type: ignore[attr-defined]
