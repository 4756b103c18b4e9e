"""Train a pruned net on, taught by the original, so that it regains what the cut has cost."""

from __future__ import annotations

import hashlib
import json
import math
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.fx import GraphModule

from edgeprune.core.progress import Count
from edgeprune.core.text import describe_duration
from edgeprune.errors import EdgepruneError, RunError
from edgeprune.graph.operators.table import find_operator
from edgeprune.graph.trace import copy_program, set_training_
from edgeprune.pruning.accelerator import CPU, bring, device_of, move_, wait_for
from edgeprune.pruning.finite import check_tensors, find_source
from edgeprune.pruning.held_out import Choice, HeldOut, Standing
from edgeprune.pruning.pairs import read_pairs
from edgeprune.pruning.recalibrate import channels_last
from edgeprune.recipes.load import Finetune, Recipe

WARMUP_SHARE = 0.05
MOMENTUM = 0.9
MAX_GRADIENT_NORM = 5.0
SEED = 0
TRIALS = 5
NOISE_WEIGHT, NOISE_KNEE = 2.0, 1e-3
"""The noise of rounding counts as much as the loss where it is a thousandth of the output (30 dB), and never more than
twice that: where rounding ruins the net, it is the loss that leads."""
FRAGILE_CHANNELS = 16

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Mode:
    """How a training step computes: in bfloat16 where the operators allow it, and with channels last in memory."""

    bfloat16: bool = False
    channels_last: bool = False

    def run(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """The model's outputs, in float32, for inputs that are where it is."""
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.bfloat16):
            outputs: Tensor = model(channels_last(inputs) if self.channels_last else inputs.contiguous())
        return outputs.float()


@dataclass(frozen=True)
class Course:
    """What a training has beside its recipe's settings: where it is saved after each epoch, a copy that rounds and runs
    in place of the net (:func:`recover`), the data that its states are judged by, and the device that it runs on.
    """

    checkpoint: Path | None = None
    make_rounding_copy: Callable[[GraphModule], GraphModule] | None = None
    held_out: HeldOut | None = None
    device: torch.device = CPU

    @property
    def name(self) -> str:
        """What the training is called."""
        return "quantization-aware" if self.make_rounding_copy else "recover"


@dataclass(frozen=True)
class Recovered:
    """The net that comes out, how its states stand (before training, then after each epoch), and which it is.

    Without held-out data there are no standings, and it is the last.
    """

    program: GraphModule
    standings: tuple[Standing, ...] = ()
    kept: int = 0


@dataclass
class _Training:
    """A training under way: everything that an epoch reads and moves on; `runs` is the program or its rounding copy.
    All of it is on one device.

    `best` is the state of the program that is chosen so far, where states are judged.
    """

    program: GraphModule
    teacher: GraphModule | None
    recipe: Recipe
    optimizer: torch.optim.SGD
    runs: GraphModule
    choice: Choice | None
    mode: Mode = Mode()
    epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def rounds(self) -> bool:
        """Whether a copy that rounds runs, with norms as they are."""
        return self.runs is not self.program

    def judge_(self) -> None:
        """Let the state be chosen if it is the best so far."""
        if self.choice is not None:
            set_training_(self.runs, False)
            if self.choice.offer_(self.choice.held_out.judge(self.runs)):
                self.best = {name: value.detach().clone() for name, value in self.program.state_dict().items()}
            set_training_(self.runs, not self.rounds)


def recover(
    program: GraphModule, teacher: GraphModule | None, recipe: Recipe, progress: Progress, course: Course = Course()
) -> Recovered:
    """A copy of `program`, in eval mode, trained by the recipe's settings: its best state on the held-out data.

    SGD with Nesterov momentum, a short warm-up and one cosine to zero (Loshchilov and Hutter, 2017), the gradient's
    norm clipped, no weight decay on norms and biases, and distillation (Hinton et al., 2015): `teacher` (in eval mode)
    answers for the same augmented inputs. The number format and memory layout of a step are those that prove fastest
    there. With `make_rounding_copy`, training runs a copy that shares the program's tensors and rounds them, in
    float32, norms as they are; how far its answers are from the program's own is part of the loss, so that the program
    learns to mind the rounding less (after Alizadeh et al., "Gradient l1 regularization for quantization robustness",
    2020).
    A training that finds its own checkpoint goes on from there, and gives the same net as one that was never
    interrupted.

    Raises:
        EdgepruneError: the loss stops being finite; says what to change.
        RunError: the checkpoint cannot be written.
    """
    student, settings = copy_program(program), recipe.finetune
    if settings.epochs == 0:
        return Recovered(student)
    identity = _identity(student, settings)
    training = _begin(student, teacher, recipe, course)
    if not (course.checkpoint and _resume_(training, course.checkpoint, identity)):
        mode = choose_mode(student, recipe)
        training.mode = replace(mode, bfloat16=mode.bfloat16 and not training.rounds)
        training.judge_()
    set_training_(training.runs, not training.rounds)
    started, first = time.monotonic(), training.epoch
    while training.epoch < settings.epochs:
        loss = _train_epoch_(training)
        training.judge_()
        if course.checkpoint:
            _save(training, course.checkpoint, identity)
        remaining_s = (time.monotonic() - started) / (training.epoch - first) * (settings.epochs - training.epoch)
        progress(
            Count(
                f"{course.name}: epoch {training.epoch} of {settings.epochs}, loss {loss:.3f}, "
                f"{describe_duration(remaining_s)} left"
            )
        )
    set_training_(training.runs, False)
    move_(student, CPU)
    if training.choice is None:
        return Recovered(student, kept=settings.epochs)
    student.load_state_dict(training.best)
    return Recovered(student, tuple(training.choice.standings), training.choice.kept)


def _begin(student: GraphModule, teacher: GraphModule | None, recipe: Recipe, course: Course) -> _Training:
    move_(student, course.device)
    if teacher is not None and course.device != CPU:
        teacher = move_(copy_program(teacher), course.device)
    runs = course.make_rounding_copy(student) if course.make_rounding_copy else student
    choice = Choice(course.held_out) if course.held_out else None
    return _Training(student, teacher, recipe, make_optimizer(student, recipe.finetune), runs, choice)


def training_loss(recipe: Recipe, outputs: Tensor, targets: Tensor, answers: Tensor | None) -> Tensor:
    """The recipe's loss mixed with the distance to the teacher's outputs.

    The distance is the divergence of softened class probabilities where the loss is the default one (Hinton et al.,
    2015, times the squared temperature), else the mean squared difference.
    """
    task = recipe.loss(outputs, targets)
    if answers is None:
        return task
    if recipe.classifies:
        warm = recipe.finetune.temperature
        soft_outputs, soft_answers = (outputs / warm).log_softmax(1), (answers / warm).log_softmax(1)
        distance = nn.functional.kl_div(soft_outputs, soft_answers, reduction="sum", log_target=True) * warm**2
        distance = distance * outputs.shape[1] / outputs.numel()
    else:
        distance = nn.functional.mse_loss(outputs, answers)
    weight = recipe.finetune.distillation
    return (1 - weight) * task + weight * distance


def learning_rate(progress: float, peak: float) -> float:
    """Linear warm-up, then a cosine to zero, over `progress` in [0, 1]."""
    if progress < WARMUP_SHARE:
        return peak * (0.1 + 0.9 * progress / WARMUP_SHARE)
    return peak * 0.5 * (1 + math.cos(math.pi * (progress - WARMUP_SHARE) / (1 - WARMUP_SHARE)))


def choose_mode(program: GraphModule, recipe: Recipe) -> Mode:
    """The mode whose training step takes the least time on the first batch, tried on a copy where the program is."""
    seed(0)
    device = device_of(program)
    inputs, targets = (bring(part, device) for part in next(read_pairs(recipe.train_data())))
    layouts = (False, True) if inputs.ndim == 4 and not breaks_channels_last(program) else (False,)
    trial = copy_program(program)
    set_training_(trial, True)
    times: dict[Mode, list[float]] = {Mode(half, layout): [] for half in (False, True) for layout in layouts}
    for _ in range(TRIALS + 1):  # in turn, so that whatever else runs here hits all of them
        for mode in list(times):
            try:
                times[mode].append(_timed_step(trial, mode, (inputs, targets), recipe))
            except RuntimeError as exc:  # an operator of this graph does not take bfloat16
                if not mode.bfloat16:
                    raise EdgepruneError(f"recover: a training step fails: {exc}") from exc
                del times[mode]
    return min(times, key=lambda mode: min(times[mode][1:]))


def breaks_channels_last(program: GraphModule) -> bool:
    """Whether a training step with channels last would corrupt memory in torch 2.13's oneDNN.

    Found on AVX-512: the backward pass of a strided 1x1 convolution that reads fewer than 16 channels crashes for
    nearly every width; 16 and more, 3x3 kernels, channels first, and accelerators do not.
    """
    if device_of(program) != CPU:
        return False
    weights = dict(program.named_parameters(remove_duplicate=False))
    for node in program.graph.nodes:
        family = find_operator(node)
        if not family.is_layer or family.is_transposed or family.window_rank != 2:
            continue
        weight = weights.get(str(getattr(node.args[1], "target", "")))
        strides = node.args[3] if len(node.args) > 3 else [1]
        narrow = weight is not None and weight.shape[1] < FRAGILE_CHANNELS and tuple(weight.shape[2:]) == (1, 1)
        if narrow and max(strides) > 1:
            return True
    return False


def _timed_step(trial: GraphModule, mode: Mode, batch: tuple[Tensor, Tensor], recipe: Recipe) -> float:
    wait_for(batch[0].device)
    started = time.perf_counter()
    loss = training_loss(recipe, mode.run(trial, batch[0]), batch[1], None)
    torch.autograd.grad(loss, [value for value in trial.parameters() if value.requires_grad], allow_unused=True)
    wait_for(batch[0].device)
    return time.perf_counter() - started


def _train_epoch_(training: _Training) -> float:
    """One pass over the data, seeded by its number; gives the mean loss."""
    seed(training.epoch)
    data, settings = training.recipe.train_data(), training.recipe.finetune
    losses: list[float] = []
    device = device_of(training.program)
    for inputs, targets in read_pairs(data):
        progress = min(1.0, (training.epoch + len(losses) / len(data)) / settings.epochs)
        for group in training.optimizer.param_groups:
            group["lr"] = learning_rate(progress, settings.learning_rate)
        losses.append(_step_(training, bring(inputs, device), bring(targets, device)))
    training.epoch += 1
    check_tensors(training.program, f"recover: after epoch {training.epoch}", _remedy(training.recipe))
    return math.fsum(losses) / len(losses)


def _remedy(recipe: Recipe) -> str:
    rate = recipe.finetune.learning_rate
    return f"lower finetune learning_rate in {recipe.source} (now {rate:g}) or check its train_data()"


def _step_(training: _Training, inputs: Tensor, targets: Tensor) -> float:
    outputs = training.mode.run(training.runs, inputs)
    answers = _answers(training, inputs)
    loss = training_loss(training.recipe, outputs, targets, answers)
    if training.rounds:
        plain = training.mode.run(training.program, inputs)
        noise = noise_share(outputs, plain, answers)
        loss = loss + loss.detach().abs() * NOISE_WEIGHT * noise / (noise + NOISE_KNEE)
    value = float(loss.detach())
    if not math.isfinite(value):
        source = find_source(training.program, inputs)
        raise EdgepruneError(
            f"recover: the loss is not finite in epoch {training.epoch + 1}: {source}; {_remedy(training.recipe)}"
        )
    training.optimizer.zero_grad()
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(training.program.parameters(), MAX_GRADIENT_NORM)
    training.optimizer.step()
    return value


def noise_share(rounded: Tensor, plain: Tensor, answers: Tensor | None) -> Tensor:
    """Power of what rounding changes, as a share of the teacher's outputs: those cannot grow to make it look small."""
    power = (plain.detach() if answers is None else answers).square().sum()
    return (rounded - plain).square().sum() / power.clamp(min=torch.finfo(torch.float32).tiny)


def _answers(training: _Training, inputs: Tensor) -> Tensor | None:
    if training.teacher is None or training.recipe.finetune.distillation == 0:
        return None
    with torch.no_grad():
        return training.mode.run(training.teacher, inputs)


def make_optimizer(program: GraphModule, settings: Finetune) -> torch.optim.SGD:
    """SGD with Nesterov momentum, without weight decay on norms and biases."""
    trained = [value for value in program.parameters() if value.requires_grad]
    groups = [
        {"params": [value for value in trained if value.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [value for value in trained if value.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=MOMENTUM, nesterov=True)


def seed(number: int) -> None:
    """Seed every source of chance that a recipe's data may draw from."""
    torch.manual_seed(SEED + number)
    random.seed(SEED + number)
    np.random.seed(SEED + number)


def _identity(program: GraphModule, settings: Finetune) -> str:
    """Names a training by the weights that it starts from and by its settings."""
    digest = hashlib.sha256(json.dumps(asdict(settings)).encode())
    for name, value in program.state_dict().items():
        digest.update(f"{name} {list(value.shape)}".encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _save(training: _Training, checkpoint: Path, identity: str) -> None:
    tensors = {f"state.{name}": value.detach().clone() for name, value in training.program.state_dict().items()}
    for name, value in training.program.named_parameters():
        momentum = training.optimizer.state.get(value, {}).get("momentum_buffer")
        if momentum is not None:
            tensors[f"momentum.{name}"] = momentum.clone()
    tensors |= {f"best.{name}": value for name, value in training.best.items()}
    choice = training.choice
    judged = {"standings": [asdict(standing) for standing in choice.standings], "kept": choice.kept} if choice else None
    about = {"identity": identity, "epoch": training.epoch, "mode": asdict(training.mode), "judged": judged}
    partial = checkpoint.with_name(f".{checkpoint.name}.partial")
    try:
        contiguous = {name: value.contiguous() for name, value in tensors.items()}
        save_file(contiguous, partial, {"training": json.dumps(about)})
        partial.replace(checkpoint)
    except (OSError, SafetensorError) as exc:
        partial.unlink(missing_ok=True)
        raise RunError(f"{checkpoint}: the training's checkpoint cannot be written: {exc}") from exc


def _resume_(training: _Training, checkpoint: Path, identity: str) -> bool:
    """Take up a training from its checkpoint; one that is missing, torn or of another training is passed over."""
    try:
        with safe_open(checkpoint, "pt") as file:
            about: dict[str, Any] = json.loads(file.metadata()["training"])
            if about["identity"] != identity or (about["judged"] is None) != (training.choice is None):
                return False
            device = device_of(training.program)
            tensors = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return False
    training.program.load_state_dict(
        {name.removeprefix("state."): value for name, value in tensors.items() if name.startswith("state.")}
    )
    for name, value in training.program.named_parameters():
        if f"momentum.{name}" in tensors:
            training.optimizer.state[value]["momentum_buffer"] = tensors[f"momentum.{name}"]
    training.epoch, training.mode = int(about["epoch"]), Mode(**about["mode"])
    if training.choice is not None:
        training.choice.standings = [Standing(**row) for row in about["judged"]["standings"]]
        training.choice.kept = int(about["judged"]["kept"])
        training.best = {
            name.removeprefix("best."): value for name, value in tensors.items() if name.startswith("best.")
        }
    return True
