"""What every stage works on: the run, its target and recipe, the device, the traced net."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch.fx import GraphModule

from edgeprune.core.candidates import candidate_widths
from edgeprune.core.measurement import DeviceFacts, parse_device_facts
from edgeprune.core.target import Target
from edgeprune.device.connect import Device, open_device
from edgeprune.device.energy import check_meter
from edgeprune.errors import DeviceError, RunError, TargetError
from edgeprune.graph.groups import Analysis, find_groups
from edgeprune.graph.storage import load_model
from edgeprune.recipes.load import Recipe, load_recipe
from edgeprune.run import Run
from edgeprune.shipped import load_gates, load_target


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
        if request["gates"] is not None:
            target = replace(target, gates=load_gates(Path(request["gates"])))
        return target

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
            TargetError: a gate on energy and no power meter.
            RunError: the run is planned on an estimate, so no board belongs to it.
        """
        self.require_measured()
        device = self.stack.enter_context(open_device(self.target, self.run.request["host"]))
        self.detail(f"{device.facts.host}: {device.facts.cpu}, {device.facts.os}")
        check_meter(device, self.target)
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
    def widths(self) -> dict[str, tuple[int, ...]]:
        """Widths on offer by group."""
        return candidate_widths(self.analysis.groups, self.analysis.layers, self.target.step)


def check_request(job: Job) -> None:
    """Settle what can be settled before anything slow begins.

    Raises:
        TargetError: no budget, or a runtime whose format cannot be made here.
        RecipeError: the recipe cannot be loaded.
    """
    target = job.target
    if target.budget.latency_ms is None and target.budget.speedup is None:
        raise TargetError(f"target {target.name}: no budget; give --latency-ms or --speedup, or [budget] in the target")
    if target.format not in job.formats:
        raise TargetError(
            f"target {target.name}: runtime {target.runtime} needs TFLite; `pip install 'edgeprune[tflite]'`"
        )
    job.recipe  # noqa: B018  loads it: a broken recipe is told at once
