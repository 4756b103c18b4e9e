"""A short training that every cut net gets before its loss is compared: what it learns back at once cost nothing.

The loss of a net that was only cut saturates at the loss of guessing, where a cut that ruins the net for good looks
no dearer than one that a few steps repair. Short fine-tuning before comparing is from NetAdapt (Yang et al., 2018).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from edgeprune.graph.trace import copy_program, set_training_
from edgeprune.pruning.accelerator import CPU, bring, device_of, move_, wait_for
from edgeprune.pruning.finite import check_tensors
from edgeprune.pruning.pairs import read_pairs
from edgeprune.pruning.recover import (
    MAX_GRADIENT_NORM,
    Mode,
    breaks_channels_last,
    choose_mode,
    learning_rate,
    make_optimizer,
    seed,
    training_loss,
)
from edgeprune.recipes.load import Recipe

STEPS = 48
RATE = 0.3
"""Peak learning rate, as a share of the recipe's: what a long training can take shakes a short one too much."""
LEAST_STEPS = 8
"""Fewer steps would leave the nets worse than without any."""
SECONDS = 240.0
"""What all lessons together may take."""
MAX_BYTES = 2**29
TRIAL_STEPS = 3

Exercise = tuple[Tensor, Tensor, Tensor | None]
"""Inputs, targets, and what the original answers."""


@dataclass(frozen=True)
class Lesson:
    """The exercises of a short training, `steps` in all, taken in turn, on the device that they are on."""

    recipe: Recipe
    exercises: tuple[Exercise, ...]
    mode: Mode
    steps: int

    def give_(self, program: GraphModule) -> bool:
        """Train a net in eval mode by SGD over one cosine; it ends in eval mode, where the exercises are. Tells whether
        there were any steps.

        Raises:
            EdgepruneError: a parameter or statistic is not finite afterwards.
        """
        if self.steps == 0:
            return False
        seed(0)
        move_(program, self.exercises[0][0].device)
        mode = Mode(self.mode.bfloat16, self.mode.channels_last and not breaks_channels_last(program))
        optimizer = make_optimizer(program, self.recipe.finetune)
        set_training_(program, True)
        for step in range(self.steps):
            inputs, targets, answers = self.exercises[step % len(self.exercises)]
            optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = learning_rate(
                step / self.steps, RATE * self.recipe.finetune.learning_rate
            )
            loss = training_loss(self.recipe, mode.run(program, inputs), targets, answers)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(program.parameters(), MAX_GRADIENT_NORM)
            optimizer.step()
        set_training_(program, False)
        rate = self.recipe.finetune.learning_rate
        remedy = f"lower finetune learning_rate in {self.recipe.source} (now {rate:g}) or check its train_data()"
        check_tensors(program, "a short training of a cut net", remedy)
        return True


def prepare_lesson(program: GraphModule, recipe: Recipe, nets: int, device: torch.device = CPU) -> Lesson:
    """A lesson on a device for so many cuts of `program` in the time there is: none at all if that is too short."""
    program = program if device == CPU else move_(copy_program(program), device)
    mode = choose_mode(program, recipe)
    seed(0)
    exercises = tuple(_exercises(program, recipe, mode))
    trial = Lesson(recipe, exercises, mode, TRIAL_STEPS)
    trial.give_(copy_program(program))
    wait_for(device)
    start_s = time.perf_counter()
    trial.give_(copy_program(program))
    wait_for(device)
    step_s = (time.perf_counter() - start_s) / TRIAL_STEPS
    steps = min(STEPS, int(SECONDS / (step_s * max(1, nets))))
    return Lesson(recipe, exercises, mode, steps if steps >= LEAST_STEPS else 0)


def _exercises(program: GraphModule, recipe: Recipe, mode: Mode) -> Iterator[Exercise]:
    """Training batches, from the start again where the data end, as many as there are steps or fit in memory."""
    used_bytes, device = 0, device_of(program)
    passes = chain.from_iterable(read_pairs(recipe.train_data()) for _ in range(STEPS))
    for batch in islice(passes, STEPS):
        inputs, targets = (bring(part, device) for part in batch)
        used_bytes += inputs.nbytes
        if used_bytes > MAX_BYTES and used_bytes > inputs.nbytes:
            return
        with torch.no_grad():
            yield inputs, targets, mode.run(program, inputs) if recipe.finetune.distillation else None
