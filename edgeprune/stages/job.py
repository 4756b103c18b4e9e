"""What every stage works on: the run, its target and recipe, the device, the traced net."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch.fx import GraphModule

from edgeprune.core.candidates import WidthRule, candidate_widths, is_joint
from edgeprune.core.layers import Layer, find_joins
from edgeprune.core.limits import Limits, read_limits
from edgeprune.core.measurement import DeviceFacts, parse_device_facts
from edgeprune.core.runtime_faults import check_runtime
from edgeprune.core.target import AUTO, Target, suggest
from edgeprune.device.connect import Device, open_device
from edgeprune.device.energy import check_meter
from edgeprune.errors import DeviceError, RecipeError, RunError, TargetError
from edgeprune.export.probes.build import OPERATORS
from edgeprune.graph.groups import Analysis, find_groups
from edgeprune.graph.storage import load_model
from edgeprune.recipes.load import Recipe, load_recipe
from edgeprune.run import Run, read_json
from edgeprune.shipped import load_gates, load_target

CHOSEN = "precision.json"
"""Where a run keeps the precision that it plans for, if its target leaves it open."""


@dataclass(frozen=True)
class Job:
    """A run with what its stages work on, each made when it is first asked for."""

    run: Run
    say: Callable[[str], None]
    stack: ExitStack

    def detail(self, text: str) -> None:
        """Say something that belongs to the stage under way."""
        self.say(f"  {text}")

    @cached_property
    def target(self) -> Target:
        """The target with what the request overrides."""
        request = self.run.request
        target = load_target(request["target"])
        changes = {name: request[name] for name in ("runtime", "precision", "threads") if request[name] is not None}
        target = replace(target, **changes)
        asked = {name: request[name] for name in ("latency_ms", "speedup") if request[name] is not None}
        if asked:
            target = replace(target, budget=replace(target.budget, **{"latency_ms": None, "speedup": None, **asked}))
        if request.get("confidence") is not None:
            target = replace(target, budget=replace(target.budget, confidence=request["confidence"]))
        if request["gates"] is not None:
            target = replace(target, gates=load_gates(Path(request["gates"])))
        return target

    @property
    def planned(self) -> Target:
        """The target as it is planned for: where it leaves the precision open, that which `profile` has chosen."""
        chosen = self.run.path(CHOSEN)
        if self.target.precision != AUTO or not chosen.exists():
            return self.target
        return replace(self.target, precision=read_json(chosen)["precision"])

    @cached_property
    def recipe(self) -> Recipe:
        """The user's model and data."""
        return load_recipe(self.run.request["recipe"])

    @cached_property
    def formats(self) -> tuple[str, ...]:
        """File formats that can be made here."""
        return ("onnx", "tflite") if importlib.util.find_spec("litert_torch") else ("onnx",)

    @property
    def estimated(self) -> bool:
        """Whether the run is planned on an estimated profile, no board being at hand."""
        return bool(self.run.request.get("estimate"))

    @cached_property
    def device(self) -> Device:
        """The board, connected.

        Raises:
            DeviceError: it is not the board that this run began on.
            TargetError: a gate on energy and no power meter, or a precision that its runtime computes wrong.
            RunError: the run is planned on an estimate, so no board belongs to it.
        """
        self.require_measured()
        request, governor = self.run.request, bool(self.run.request.get("set_governor"))
        device = self.stack.enter_context(open_device(self.target, request["host"], self.detail, governor))
        self.detail(f"{device.facts.host}: {device.facts.cpu}, {device.facts.os}")
        check_meter(device, self.target)
        check_runtime(self.target, device.facts.runtimes)
        if self.run.finished("profile"):
            begun = self.run.result("profile")["device"]
            if begun["fingerprint"] != device.facts.fingerprint:
                raise DeviceError(
                    f"{self.run.directory}: was profiled on {begun['host']} ({begun['cpu']}, fingerprint "
                    f"{begun['fingerprint']}), but {device.facts.host} has {device.facts.fingerprint}; "
                    "name another --run"
                )
        return device

    def require_measured(self) -> None:
        """Refuse whatever comes after planning in a run that was planned on an estimate.

        Raises:
            RunError: it was; says what to do.
        """
        if self.estimated:
            raise RunError(
                f"{self.run.directory}: was planned on an estimated profile; an estimate is never cut, measured or "
                "judged by; begin a new run with --host"
            )

    @property
    def facts(self) -> DeviceFacts:
        """What the board said of itself when it was profiled; asked now where that is still to come."""
        if self.run.finished("profile"):
            return parse_device_facts(self.run.result("profile")["device"])
        return self.device.facts

    @cached_property
    def original(self) -> GraphModule:
        """The unpruned net as it was traced."""
        return load_model(self.run.path("original.pt2"))

    @cached_property
    def analysis(self) -> Analysis:
        """Its channel groups and layers."""
        return find_groups(self.original)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """What the net's latency is the sum of: its layers and what else takes time; of a board, what else has probes.

        An operator that too many groups shape to be planned with them is left out: measured nets correct for it, or
        what the estimated whole net takes beyond the rest.
        """
        layers = self.analysis.layers
        operators = [one for one in self.analysis.operators if is_joint(one, self.widths)]
        if self.estimated:
            return (*layers, *operators)
        return (*layers, *(one for one in operators if one.shape.op in OPERATORS), *find_joins(layers))

    @cached_property
    def widths(self) -> dict[str, tuple[int, ...]]:
        """Widths on offer by group."""
        return candidate_widths(self.analysis.groups, self.analysis.layers, self.target.step, self.width_rules)

    @cached_property
    def width_rules(self) -> dict[str, WidthRule]:
        """The recipe's rules by group; a layer's rule is that of the group that its output channels belong to.

        Raises:
            RecipeError: a rule for what is no layer or group that may be cut.
        """
        found: dict[str, WidthRule] = {}
        sizes = {group.name: group.size for group in self.analysis.groups if not group.frozen}
        outputs = {layer.name: sorted(layer.cout.groups & sizes.keys()) for layer in self.analysis.layers}
        for name, rule in self.recipe.widths.items():
            groups = [name] if name in sizes else outputs.get(name, [])
            if not groups:
                raise RecipeError(
                    f"{self.recipe.source}: widths: no layer {name!r} that may be cut{suggest(name, sizes)}"
                )
            found |= {group: rule or WidthRule(fixed=sizes[group]) for group in groups}
        return found

    @property
    def limits(self) -> Limits:
        """What else the plan is held to than latency.

        Raises:
            InfeasibleBudget: not even a net without weights fits the file.
        """
        overhead = self.run.result("profile").get("overhead_bytes", 0)
        limits = read_limits(self.target.budget, self.planned.fitted_precision, overhead)
        fixed = {group: rule.fixed for group, rule in self.width_rules.items() if rule.fixed is not None}
        return replace(limits, fixed=fixed)


def check_request(job: Job) -> None:
    """Settle what can be settled before anything slow begins.

    Raises:
        TargetError: no budget, one of energy without a board, or a runtime whose format cannot be made here.
        RecipeError: the recipe cannot be loaded.
    """
    target = job.target
    budget = target.budget
    if budget.latency_ms is None and budget.speedup is None and budget.energy_mj is None:
        raise TargetError(f"target {target.name}: no budget; give --latency-ms or --speedup, or [budget] in the target")
    if budget.energy_mj is not None and job.estimated:
        raise TargetError(f"target {target.name}: a budget of energy_mj needs a board with a power meter; give --host")
    if target.format not in job.formats:
        raise TargetError(
            f"target {target.name}: runtime {target.runtime} needs TFLite; `pip install 'edgeprune[tflite]'`"
        )
    job.recipe  # noqa: B018  loads it: a broken recipe is told at once
