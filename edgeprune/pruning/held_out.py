"""Which state of a net ships: the one that does best on data held out of training, that before training included."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.fx import GraphModule

from edgeprune.core.metric import Metric
from edgeprune.pruning.accelerator import bring, device_of
from edgeprune.pruning.evidence import Batch, Loss
from edgeprune.pruning.recalibrate import channels_last
from edgeprune.pruning.sensitivity import label_batches
from edgeprune.recipes.load import Recipe
from edgeprune.recipes.reading import Data

CALIBRATION_INPUTS, FITTED_INPUTS = 2048, 512
"""Inputs that are looked at, and those of them that layers are fitted to, if there are so many."""
EVERY = 4
"""One of so many calibration inputs is held out where a recipe has no validation data."""
LEAST_INPUTS = 16
"""Of fewer calibration inputs none is held out: they are fitted to and judged by."""


@dataclass(frozen=True)
class Standing:
    """How a state does on held-out data: the recipe's metric, None where that data has no targets, and the loss."""

    quality: float | None
    loss: float

    def to_dict(self) -> dict[str, float | None]:
        """JSON-ready; what is not finite is None."""
        return {
            name: None if value is None or not math.isfinite(value) else value for name, value in vars(self).items()
        }


@dataclass(frozen=True)
class HeldOut:
    """Batches that states of a net are judged by; `source` says which, for people.

    `metric` is None where it cannot be had of them: the loss judges then.
    """

    batches: tuple[Batch, ...]
    source: str
    loss: Loss
    metric: Metric | None

    @property
    def inputs(self) -> int:
        """How many inputs there are."""
        return sum(len(inputs) for inputs, _ in self.batches)

    def judge(self, program: GraphModule) -> Standing:
        """How a program in eval mode does."""
        losses, outputs, device = 0.0, [], device_of(program)
        with torch.inference_mode():
            for inputs, targets in self.batches:
                outputs.append(program(channels_last(bring(inputs, device))))
                losses += float(self.loss(outputs[-1], bring(targets, device))) * len(inputs)
        if self.metric is None:
            return Standing(None, losses / self.inputs)
        expected = np.concatenate([targets.numpy() for _, targets in self.batches])
        quality = float(self.metric(torch.cat(outputs).float().cpu().numpy(), expected))
        return Standing(quality, losses / self.inputs)

    @property
    def description(self) -> str:
        """For people: how many inputs of what."""
        return f"{self.inputs} inputs of {self.source}"

    def say(self, standing: Mapping[str, float | None]) -> str:
        """For people: a standing as :meth:`Standing.to_dict` gives it."""
        loss = f"loss {standing['loss']:.4g}" if standing["loss"] is not None else "no finite loss"
        return (
            loss if self.metric is None else f"{self.metric.name} {self.metric.describe(standing['quality'])}, {loss}"
        )


@dataclass
class Choice:
    """The best state so far: its number among those judged, where 0 is the one before training."""

    held_out: HeldOut
    standings: list[Standing] = field(default_factory=list)
    kept: int = 0

    def offer_(self, standing: Standing) -> bool:
        """Note how one more state does; tells whether it is the best now.

        Of the states whose metric is as good as the best one's the least loss decides. As good is, of a share of right
        answers, within its standard error; of another metric, the same.
        """
        self.standings.append(standing)
        best = max((self._rank(state.quality) for state in self.standings), default=-math.inf)
        current = self.standings[self.kept]
        if self._is_as_good(standing, best) and not (
            self._is_as_good(current, best) and _finite(current.loss) < _finite(standing.loss)
        ):
            self.kept = len(self.standings) - 1
        return self.kept == len(self.standings) - 1

    def _rank(self, quality: float | None) -> float:
        """The metric with its sign turned where lower is better; what is no number ranks last."""
        if quality is None or self.held_out.metric is None:
            return 0.0
        signed = self.held_out.metric.drop(0.0, quality)
        return signed if math.isfinite(signed) else -math.inf

    def _is_as_good(self, standing: Standing, best: float) -> bool:
        rank = self._rank(standing.quality)
        metric = self.held_out.metric
        if metric is None or not metric.is_percent or not 0 <= best <= 100:
            return rank >= best
        share = (best / 100 * self.held_out.inputs + 0.5) / (self.held_out.inputs + 1)
        return rank >= best - 100 * math.sqrt(share * (1 - share) / self.held_out.inputs)


def _finite(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf


def hold_out(recipe: Recipe, program: GraphModule) -> tuple[HeldOut, tuple[Batch, ...]]:
    """What states are judged by, and the calibration batches that may be fitted to.

    The recipe's validation data; where it has none, every fourth calibration input. Evaluation data are left to the
    gates. Where targets are missing, the classes that the original `program` gives stand for them, and the loss judges.
    """
    calibration = recipe.calibration_data()
    labelled = label_batches(program, calibration, CALIBRATION_INPUTS)
    if recipe.validation_data is not None:
        data = recipe.validation_data()
        judged = label_batches(program, data, CALIBRATION_INPUTS)
        return _judge_by(judged, data, recipe), _take(labelled, FITTED_INPUTS)
    if sum(len(inputs) for inputs, _ in labelled) < LEAST_INPUTS:
        return _judge_by(labelled, calibration, recipe), labelled
    judged, fitted = (_pick(labelled, is_held) for is_held in (True, False))
    return _judge_by(judged, calibration, recipe), _take(fitted, FITTED_INPUTS)


def _judge_by(batches: Sequence[Batch], data: Data, recipe: Recipe) -> HeldOut:
    """Judges by the metric where it can be had: where there are targets, all of one size."""
    has_targets = next(iter(data))[1] is not None and len({targets.shape[1:] for _, targets in batches}) == 1
    return HeldOut(_take(batches, CALIBRATION_INPUTS), data.where, recipe.loss, recipe.metric if has_targets else None)


def _pick(batches: Sequence[Batch], is_held: bool) -> tuple[Batch, ...]:
    """Every fourth input of the batches, or the others."""
    pairs, first = list[Batch](), 0
    for inputs, targets in batches:
        numbers = torch.arange(first, first + len(inputs))
        rows = (numbers % EVERY == EVERY - 1) == is_held
        pairs.append((inputs[rows], targets[rows]))
        first += len(inputs)
    return tuple(pair for pair in pairs if len(pair[0]))


def _take(batches: Sequence[Batch], most: int) -> tuple[Batch, ...]:
    """The first inputs, at most so many."""
    head, room = list[Batch](), most
    for inputs, targets in batches:
        if room > 0:
            head.append((inputs[:room], targets[:room]))
        room -= len(inputs)
    return tuple(head)
