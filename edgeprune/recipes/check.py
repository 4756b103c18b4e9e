"""Check that a recipe's parts fit together: all on a batch of each data set, then the other batches' sizes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from edgeprune.errors import RecipeError
from edgeprune.graph.trace import is_sound, named_tensors
from edgeprune.recipes.load import Recipe, top1_accuracy_percent
from edgeprune.recipes.reading import Data
from edgeprune.recipes.user_code import guarded

LOOK_S = 30.0
"""How long training data are looked through beforehand; the rest is looked at as it is trained on."""
LEAST_INPUTS = 2
"""Inputs that statistics can be taken of."""
IGNORED = -100
"""The class that torch's cross_entropy leaves out."""
AGAIN, ALONE = 1e-5, 1e-2
"""How far outputs may lie apart when a batch is run again, and when its first input is run alone, relative to the
largest: kernels sum in another order then."""


def check_recipe(recipe: Recipe) -> tuple[str, ...]:
    """Run the model on one batch of each data set, with the loss and the metric, then look through all batches.

    Of training data as many as can be read in LOOK_S. Gives what the user should know of it.

    Raises:
        RecipeError: shapes that do not fit, values that are not finite, targets outside the model's outputs, a model
            that changes its input or answers by chance, a loss that cannot be trained on, or anything that the
            recipe's code raises.
    """
    _check_parameters(recipe)
    sets = [("eval_data", recipe.eval_data()), ("train_data", recipe.train_data())]
    if recipe.validation_data is not None:
        sets.append(("validation_data", recipe.validation_data()))
    outputs = {name: _check_first(recipe, name, data) for name, data in sets}
    _check_calibration(recipe, recipe.calibration_data())
    notes = [note for name, data in sets for note in _look_through(recipe, name, data, outputs[name].shape)]
    return (*recipe.slips, *notes)


def _check_parameters(recipe: Recipe) -> None:
    for name, tensor in named_tensors(recipe.model()).items():
        if not is_sound(name, tensor):
            raise RecipeError(f"{recipe.source}: model(): {name} holds NaN or infinity; check the checkpoint it loads")


def _check_first(recipe: Recipe, name: str, data: Data) -> Tensor:
    """The model, the loss and the metric on the first batch of pairs; gives the outputs."""
    inputs, targets = next(iter(data))
    if inputs.ndim < 2:
        raise RecipeError(
            f"{recipe.source}: {name}(): inputs of shape {list(inputs.shape)}; expected a batch dimension and another: "
            "a single number for each input is [N, 1]"
        )
    if targets is None:
        raise RecipeError(f"{recipe.source}: {name}() gives inputs only; expected pairs (inputs, targets)")
    outputs = _outputs(recipe, name, inputs)
    _check_labels(recipe, outputs)
    _check_targets(recipe, name, outputs, targets)
    return outputs


def _outputs(recipe: Recipe, name: str, inputs: Tensor) -> Tensor:
    """What the model gives for a batch, in float32: the same each time, and for each input whatever is beside it.

    Raises:
        RecipeError: it is not, or gives no finite row for each input, or changes its input.
    """
    where = f"{recipe.source}: {_say_run(name, inputs)}"
    outputs = _run(recipe, name, inputs)
    largest = max(float(outputs.abs().max()), 1e-30)
    if float((_run(recipe, name, inputs) - outputs).abs().max()) > AGAIN * largest:
        raise RecipeError(
            f"{where} gave something else when it was run again: in eval mode a net must not draw random numbers "
            "(dropout with training=True?) nor count its calls"
        )
    if float((_run(recipe, name, inputs[:1]) - outputs[:1]).abs().max()) > ALONE * largest:
        raise RecipeError(
            f"{where} gave something else for its first input when that was run alone: what an input gets must not "
            "depend on the others of its batch, as a file takes one at a time"
        )
    return outputs


def _say_run(name: str, inputs: Tensor) -> str:
    return f"model() on a batch of {name}() with shape {list(inputs.shape)}"


def _run(recipe: Recipe, name: str, inputs: Tensor) -> Tensor:
    call, copy = _say_run(name, inputs), inputs.clone()
    with torch.no_grad():
        outputs = guarded(call, str(recipe.source), lambda: recipe.model()(copy))
    where = f"{recipe.source}: {call}"
    if not isinstance(outputs, Tensor) or outputs.ndim == 0 or len(outputs) != len(inputs):
        raise RecipeError(f"{where} gave {_describe(outputs)}; expected one tensor with a row for each input")
    if not outputs.is_floating_point():
        raise RecipeError(f"{where} gave {outputs.dtype}; expected floats, such as logits: decide in the metric")
    if not torch.equal(copy, inputs):
        raise RecipeError(
            f"{where} changed its input in place; write the forward without that (x = x - 1, not x -= 1; "
            "no inplace=True on the input)"
        )
    if not bool(outputs.isfinite().all()):
        raise RecipeError(f"{where} gave NaN or infinity")
    return outputs.float()


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, tuple | list | dict):
        hint = "; wrap the net in a module whose forward gives the one that is judged"
        return f"a {type(value).__name__} of {len(value)}{hint}"
    return type(value).__name__


def _check_labels(recipe: Recipe, outputs: Tensor) -> None:
    """Require a name for every class, where there are names.

    Raises:
        RecipeError: there are more or fewer.
    """
    if recipe.labels and outputs.dim() > 1 and len(recipe.labels) != outputs.shape[1]:
        raise RecipeError(
            f"{recipe.source}: labels: {len(recipe.labels)} names, but the model has {outputs.shape[1]} outputs"
        )


def _check_targets(recipe: Recipe, name: str, outputs: Tensor, targets: Tensor) -> None:
    where = f"{recipe.source}: {name}()"
    if recipe.classifies:
        _check_classes(f"{where}: batch 1", outputs.shape, targets)
    for role, check in (("loss", _check_loss), ("metric", _check_metric)):
        copy = targets.clone()
        check(recipe, where, outputs, copy)
        if not torch.equal(copy, targets):
            raise RecipeError(
                f"{where}: the {role} changed the targets in place, so that whatever reads them next judges by others; "
                "write it without that (t = t - 1, not t -= 1)"
            )


def _check_classes(place: str, shape: torch.Size, targets: Tensor) -> None:
    """Require targets for the default loss: indices of classes, or a probability of each.

    Raises:
        RecipeError: they are neither, or lie outside of the classes.
    """
    if len(shape) < 2:
        raise RecipeError(f"{place}: the model gives {list(shape)}; the default loss needs a column for each class")
    indices, is_share = [len(targets), *shape[2:]], targets.is_floating_point()
    if list(targets.shape) != ([len(targets), *shape[1:]] if is_share else indices):
        raise RecipeError(
            f"{place}: targets are {targets.dtype} {list(targets.shape)}; for the default loss give the index of a "
            f"class, whole numbers {indices}, or give a loss of your own"
        )
    named = targets[targets != IGNORED]
    if is_share or not len(named):
        return
    low, high = int(named.min()), int(named.max())
    if low < 0 or high >= shape[1]:
        raise RecipeError(
            f"{place}: targets are {low} to {high} but the model has {shape[1]} outputs, 0 to {shape[1] - 1}"
        )


def _check_loss(recipe: Recipe, where: str, outputs: Tensor, targets: Tensor) -> None:
    """Require one finite number that can be differentiated by the outputs.

    Raises:
        RecipeError: it is not.
    """
    traced = outputs.detach().clone().requires_grad_()
    loss = guarded(f"the loss on a batch of {where}", str(recipe.source), lambda: recipe.loss(traced, targets))
    if not isinstance(loss, Tensor):
        raise RecipeError(f"{where}: the loss gave {type(loss).__name__}; expected a tensor that can be differentiated")
    if loss.numel() != 1:
        raise RecipeError(f"{where}: the loss gave a tensor {list(loss.shape)}; expected one number: take its mean()")
    if not bool(loss.isfinite()):
        raise RecipeError(f"{where}: the loss gave {float(loss.detach())}; expected a finite number")
    if not loss.requires_grad:
        raise RecipeError(
            f"{where}: the loss cannot be differentiated by the outputs: it goes through numpy, detach(), item() or "
            "argmax(); write it with differentiable functions of torch"
        )
    (slope,) = guarded(
        f"the loss's gradient on a batch of {where}",
        str(recipe.source),
        lambda: torch.autograd.grad(loss.sum(), traced, materialize_grads=True),
    )
    if not bool(slope.isfinite().all()):
        raise RecipeError(f"{where}: the gradient of the loss is NaN or infinite (a root or logarithm of 0?)")


def _check_metric(recipe: Recipe, where: str, outputs: Tensor, targets: Tensor) -> None:
    if recipe.metric.compute is top1_accuracy_percent and targets.is_floating_point():
        raise RecipeError(
            f"{where}: targets are floats {list(targets.shape)}, which the default metric (top-1) cannot be held "
            "against; give a metric of your own"
        )
    answer = recipe.metric(outputs.numpy(), targets.numpy())
    try:
        figure = float(answer)
    except (TypeError, ValueError) as exc:
        kind = f"an array of shape {list(answer.shape)}" if isinstance(answer, np.ndarray) else f"{answer!r:.60}"
        raise RecipeError(f"{where}: the metric gave {kind}; expected a number over all rows") from exc
    if not math.isfinite(figure):
        raise RecipeError(f"{where}: the metric gave {figure}; expected a finite number")


def _check_calibration(recipe: Recipe, data: Data) -> None:
    """The model on the first batch, and every batch's inputs; there must be enough of them.

    Raises:
        RecipeError: they do not fit.
    """
    where, count = f"{recipe.source}: calibration_data()", 0
    for number, (inputs, targets) in enumerate(data, 1):
        count += len(inputs)
        if targets is None and not recipe.classifies:
            raise RecipeError(
                f"{where} gives inputs only, which is enough for the default loss; "
                "with a loss of your own give pairs (inputs, targets)"
            )
        if number == 1:
            outputs = _outputs(recipe, "calibration_data", inputs)
            if targets is not None:
                _check_targets(recipe, "calibration_data", outputs, targets)
        elif recipe.classifies and targets is not None:
            _check_classes(f"{where}: batch {number}", outputs.shape, targets)
    if count < LEAST_INPUTS:
        raise RecipeError(f"{where} gives {count} input; expected typical ones, 100 or more are usual")


def _look_through(recipe: Recipe, name: str, data: Data, shape: torch.Size) -> Iterator[str]:
    """Read all batches, of training data for LOOK_S only; says how many were not looked at.

    Raises:
        RecipeError: one does not fit.
    """
    start_s, is_training, first, count = time.monotonic(), name == "train_data", None, 0
    for number, (inputs, targets) in enumerate(data, 1):
        count += len(inputs)
        place = f"{recipe.source}: {name}(): batch {number}"
        if targets is None:
            raise RecipeError(f"{place}: inputs only; expected a pair (inputs, targets)")
        if recipe.classifies:
            _check_classes(place, shape, targets)
        first = targets.shape[1:] if first is None else first
        if not is_training and targets.shape[1:] != first:
            raise RecipeError(
                f"{place}: targets of shape {list(targets.shape)}, those of batch 1 are {['N', *first]}; the metric "
                "judges all rows together: pad them to one size"
            )
        if is_training and time.monotonic() - start_s > LOOK_S and number < len(data):
            yield f"{name}(): the first {number} of {len(data)} batches were looked at beforehand, in {LOOK_S:.0f} s"
            return
    if is_training and count < LEAST_INPUTS:
        raise RecipeError(f"{recipe.source}: {name}() gives {count} input; training takes {LEAST_INPUTS} or more")
