"""A net in Python: trace it, see what can be cut, plan, cut, have a module back; part of `import edgeprune as ep`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from pathlib import Path
from typing import TypedDict, Unpack

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from edgeprune.core.artifact import Artifact
from edgeprune.core.latency.table import LatencyTable, parse_table
from edgeprune.core.planning.candidates import WidthRule, candidate_widths
from edgeprune.core.planning.limits import Limits
from edgeprune.core.planning.plan import HEADS, ChannelGroup, GroupPlan, PruningPlan
from edgeprune.core.planning.planner import Problem, choose_widths
from edgeprune.core.text import suggest
from edgeprune.errors import GraphError, PlanError, UsageError
from edgeprune.exporting.artifacts import build_artifacts
from edgeprune.exporting.request import ExportRequest
from edgeprune.graph.analysis import Analysis
from edgeprune.graph.batch import draw_example
from edgeprune.graph.costs import count_macs, count_other_parameters, count_parameters, full_widths
from edgeprune.graph.eager import apply_to_module
from edgeprune.graph.groups import find_groups, groups_of
from edgeprune.graph.precision import widen
from edgeprune.graph.proof import cut_proven
from edgeprune.graph.storage import load_model, model_sha256, save_model
from edgeprune.graph.trace import copy_program, make_switchable, set_training_, trace_model
from edgeprune.pruning.evidence import Evidence, Loss, Scores
from edgeprune.pruning.fold import copy_model, fold_weights
from edgeprune.pruning.importance import IMPORTANCE, keep_best, score_channels
from edgeprune.pruning.sensitivity import label_batches, measure_sensitivity

GOALS = ("ratio", "ratios", "macs", "parameters", "latency_ms")
DATA_FREE = ("l1", "l2", "batchnorm", "fpgm", "lamp", "random")
"""Importance criteria that go by the weights alone."""
NOT_PROVEN = 'please report this; meanwhile leave layers as they are: whole=["LAYER"]'
STEP = 8
"""Widths are multiples of it: most runtimes compute so many channels at a time."""


@dataclass(frozen=True)
class Net:
    """A traced net: its graph, an example input `[N, ...]`, and the module that it was traced from, if there is one."""

    program: GraphModule
    example: Tensor
    module: nn.Module | None = None
    whole: Net | None = None
    """The net that this one was cut from, by the plan `cut`."""
    cut: PruningPlan | None = None

    @cached_property
    def analysis(self) -> Analysis:
        """What lives and dies together in it."""
        return find_groups(self.program)

    @property
    def groups(self) -> tuple[ChannelGroup, ...]:
        """Channels that live and die together: their name, size, members, and why a group has to stay (`frozen`)."""
        return self.analysis.groups

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all convolutions and linear layers for one input."""
        return count_macs(self.analysis, {})

    @property
    def parameters(self) -> int:
        """Its parameters, buffers not counted."""
        return count_parameters(self.program)

    def to_module(self) -> nn.Module:
        """A copy of the net as a plain module: of its own class where its code allows it, else its graph, a module too.

        Parameters have the names that they had; it trains, and its own `state_dict` can be saved.
        """
        whole = self.whole
        if whole is None or self.cut is None:
            return copy_model(self.module) if self.module is not None else make_switchable(self.program)
        above = whole.to_module()
        if isinstance(above, GraphModule):
            return make_switchable(self.program)
        try:
            module = apply_to_module(above, whole.program, whole.analysis, self.cut.keep, whole.example)
        except GraphError:
            return make_switchable(self.program)
        module.load_state_dict(self.program.state_dict(), strict=False)
        return module


class PlanOptions(TypedDict, total=False):
    """What :func:`plan` may be asked for."""

    ratio: float
    ratios: Mapping[str, float]
    macs: float
    parameters: float
    latency_ms: float
    table: LatencyTable | str | Path
    importance: str
    data: Iterable[tuple[Tensor, Tensor]]
    loss: Loss
    whole: Collection[str]
    step: int


def trace(model: nn.Module, example: Tensor) -> Net:
    """The net of a model in eval mode; `example` is an input `[N, ...]`.

    Every float becomes float32; masks and norms of weights are multiplied out.

    Raises:
        GraphError: `torch.export` cannot trace it; says where and why.
    """
    plain, _ = fold_weights(model)
    program, _ = widen(trace_model(plain, example), example)
    return Net(program, example, plain)


def plan(net: Net, **options: Unpack[PlanOptions]) -> PruningPlan:
    """Choose the width of every group, and its channels by `importance` ("l2"; see docs/python.md for the others).

    One goal is given: `ratio`, the share of the channels of every group that goes (`ratios` for single layers or
    groups); `macs` or `parameters` that may stay, as a share up to 1 or a number; or `latency_ms` by a latency `table`
    (that of a run is its `latency_table.json`).
    For all but ratios the widths of least loss are found and proven: with `data` (batches of inputs and targets) and
    `loss` by how the loss rises as each group is cut, else by the share of each group's importance that goes. Layers
    or groups in `whole` stay as they are; widths are multiples of `step`, 8 if not said.

    Raises:
        UsageError: no goal or several, a share that is none, or an importance that needs data.
        PlanError: no such layer or group, or one that cannot be cut.
        InfeasibleBudget: no widths meet the goal; says the best that can be reached.
    """
    goal, method = _find_goal(options), options.get("importance", "l2")
    evidence = _gather(net, options, method)
    scores = score_channels(method, evidence)
    if goal in ("ratio", "ratios"):
        widths, rises = _choose_by_ratio(net, options), dict[str, dict[int, float]]()
    else:
        offered = _offer(net, options, has_data=bool(evidence.batches))
        if evidence.batches:
            rises = measure_sensitivity(evidence, scores, offered, lambda program: False, lambda text: None)
        else:
            rises = {name: _lose(scores[name], choices) for name, choices in offered.items()}
        widths = _choose_by_limit(net, options, goal, rises)
    return _describe(net, widths, scores, rises, method)


def prune(net: Net, plan: PruningPlan) -> Net:
    """Cut what a plan drops, and prove that the outputs are those of the net with these channels silenced.

    Raises:
        PlanError: the plan was made for another net, does not fit, or the proof fails.
        GraphError: an operator whose sizes cannot be rewritten.
    """
    if plan.model_sha256 not in ("", model_sha256(net.program)):
        raise PlanError("the plan was made for another net, or its weights have changed since; plan again")
    pruned, _ = cut_proven(net.program, net.analysis, plan.keep, net.example, NOT_PROVEN)
    return Net(pruned, net.example, whole=net, cut=plan)


def save(net: Net, path: str | Path) -> None:
    """Write a net as a `.pt2`, which loads without its source code and holds no pickle.

    Raises:
        GraphError: it cannot be written.
    """
    save_model(net.program, Path(path), net.example)


def load(path: str | Path) -> Net:
    """Read a net that :func:`save` wrote.

    Raises:
        GraphError: it is none.
    """
    program = load_model(Path(path))
    return Net(program, draw_example(program))


def export(
    net: Net,
    directory: str | Path,
    formats: Sequence[str] = ("onnx",),
    precisions: Sequence[str] = ("fp32",),
    calibration: Iterable[Tensor] = (),
) -> tuple[Artifact, ...]:
    """Write a net as files that take one input at a time, `directory / artifact.path`.

    Formats are "onnx" and "tflite"; precisions are "fp32", "int8" (which needs `calibration`, batches of inputs) and
    others, as docs/quantization.md lists them.

    Raises:
        ExportError: an unknown name, no calibration data where they are needed, or what an exporter raises.
    """
    role = "original" if net.cut is None else "pruned"
    request = ExportRequest(Path(directory), role, tuple(formats), tuple(precisions), calibration)
    program = copy_program(net.program)
    set_training_(program, False)
    return build_artifacts(program, net.example[:1], request)


def _find_goal(options: PlanOptions) -> str:
    """The one goal that is given.

    Raises:
        UsageError: none or several, or a share out of its range.
    """
    unknown = sorted(options.keys() - PlanOptions.__annotations__.keys())
    if unknown:
        raise UsageError(f"plan: no {unknown[0]!r}{suggest(unknown[0], list(PlanOptions.__annotations__))}")
    goals = [name for name in GOALS if name in options]
    if goals not in ([name] for name in GOALS) and goals != ["ratio", "ratios"]:
        raise UsageError(f"plan: give one goal of {', '.join(GOALS)}; found {', '.join(goals) or 'none'}")
    for name, share in {"ratio": options.get("ratio", 0.0), **options.get("ratios", {})}.items():
        if not 0 <= share < 1:
            raise UsageError(f"plan: {name}: {share!r}; expected the share that goes, from 0 and below 1")
    if ("latency_ms" in options) != ("table" in options):
        raise UsageError("plan: latency_ms and table belong together; `edgeprune profile` measures a table")
    return goals[0]


def _gather(net: Net, options: PlanOptions, method: str) -> Evidence:
    """What channels are judged by.

    Raises:
        UsageError: an importance that needs data, and none; or data without a loss.
    """
    if ("data" in options) != ("loss" in options):
        raise UsageError("plan: data (batches of inputs and targets) and loss (of outputs and targets) belong together")
    if "data" not in options and method not in DATA_FREE:
        is_known = method in IMPORTANCE
        raise UsageError(
            f"plan: importance {method!r} "
            + ("needs data=..., loss=..." if is_known else f"is not known{suggest(method, IMPORTANCE)}")
        )
    batches = label_batches(net.program, options["data"]) if "data" in options else ()
    return Evidence(net.program, net.analysis, batches, options.get("loss", torch.nn.functional.cross_entropy))


def _find_groups(net: Net, name: str) -> list[str]:
    """The groups of a layer, or the one of that name; none where they have to stay.

    Raises:
        PlanError: there is no such layer or group.
    """
    names = {layer.name for layer in net.analysis.layers} | {group.name for group in net.groups}
    if name not in names:
        raise PlanError(f"no layer or group {name!r} in this net{suggest(name, sorted(names))}")
    return groups_of(net.analysis, name)


def _find_whole(net: Net, options: PlanOptions) -> set[str]:
    """Groups that stay as they are."""
    return {group for name in options.get("whole", ()) for group in _find_groups(net, name)}


def _find_ratios(net: Net, options: PlanOptions) -> dict[str, float]:
    """The share that goes by group, where one is given for it.

    Raises:
        PlanError: the group has to stay; says why.
    """
    ratios: dict[str, float] = {}
    for name, ratio in options.get("ratios", {}).items():
        groups = _find_groups(net, name)
        if not groups:
            frozen = {group.name: group.frozen for group in net.groups}.get(name, "")
            raise PlanError(f"{name!r} has to stay whole{f': {frozen}' if frozen else ''}")
        ratios |= dict.fromkeys(groups, ratio)
    return ratios


def _offer(net: Net, options: PlanOptions, has_data: bool) -> dict[str, tuple[int, ...]]:
    """Widths to choose from. Without data nothing tells what a whole branch is worth, so these stay."""
    sizes = full_widths(net.analysis)
    rules = {name: WidthRule(fixed=sizes[name]) for name in _find_whole(net, options)}
    offered = candidate_widths(net.groups, net.analysis.layers, options.get("step", STEP), rules)
    branches = [group.name for group in net.groups if group.is_branch and group.name in offered]
    return offered if has_data else offered | dict.fromkeys(branches, (1,))


def _lose(scores: Scores, choices: Collection[int]) -> dict[int, float]:
    """The share of a group's importance (squared scores) that goes at each width."""
    squares = scores**2
    total = float(squares.sum()) or 1.0
    return {width: 1 - float(squares[list(keep_best(scores, width))].sum()) / total for width in choices}


def _choose_by_ratio(net: Net, options: PlanOptions) -> dict[str, int]:
    """The nearest width on offer to the share that stays, of every group."""
    ratios = _find_ratios(net, options) | dict.fromkeys(_find_whole(net, options), 0.0)
    widths = {}
    for group in net.analysis.channel_groups:
        ratio = ratios.get(group.name, options.get("ratio", 0.0))
        offered = group.widths(1 if group.kind == HEADS else options.get("step", STEP))
        widths[group.name] = min(offered, key=lambda width: abs(width - (1 - ratio) * group.size))
    return widths


def _choose_by_limit(
    net: Net, options: PlanOptions, goal: str, rises: Mapping[str, Mapping[int, float]]
) -> dict[str, int]:
    """The widths of least loss within a limit."""
    if goal == "latency_ms":
        problem = Problem(net.analysis.layers, rises, _read_table(options["table"]))
        return choose_widths(problem, options["latency_ms"]).widths
    other_parameters = count_other_parameters(net.program, net.analysis) if goal == "parameters" else 0
    whole, amount = (net.parameters if goal == "parameters" else net.macs), options[goal]  # type: ignore[literal-required]
    limit = round(amount * whole if amount <= 1 else amount) - other_parameters
    if limit <= 0:
        raise UsageError(f"plan: {goal}: {amount!r}; expected a share up to 1, or a number; the net has {whole:,}")
    return choose_widths(Problem(net.analysis.layers, rises, limits=Limits(**{goal: limit})), inf).widths


def _read_table(table: LatencyTable | str | Path) -> LatencyTable:
    """A latency table, from its file where it is one.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(table, LatencyTable):
        return table
    if not isinstance(table, str | Path):
        raise UsageError(f"plan: table: {type(table).__name__}; expected the path of a run's latency_table.json")
    try:
        return parse_table(Path(table).read_text(), str(table))
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"plan: table: {table}: cannot be read: {exc}") from exc


def _describe(
    net: Net, widths: Mapping[str, int], scores: Mapping[str, Scores], rises: Mapping[str, Mapping[int, float]], by: str
) -> PruningPlan:
    kinds = {group.name: group for group in net.groups}
    entries = [
        GroupPlan(
            group=name,
            size=kinds[name].size,
            keep=keep_best(scores[name], width),
            loss_increase=rises.get(name, {}).get(width, 0.0),
            reason=f"highest {by} scores kept" if width < kinds[name].size else "whole",
            kind=kinds[name].kind,
        )
        for name, width in widths.items()
    ]
    loss_increase = sum(entry.loss_increase for entry in entries)
    return PruningPlan(tuple(entries), model_sha256(net.program), loss_increase=loss_increase)
