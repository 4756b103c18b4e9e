"""Check, on one batch of each data set, that a recipe's parts fit together."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from edgeprune.errors import RecipeError
from edgeprune.recipes.load import Data, Recipe, guarded


def check_recipe(recipe: Recipe) -> None:
    """Run the model on one batch of each data set, with the loss and the metric.

    Raises:
        RecipeError: shapes that do not fit, values that are not finite, targets outside the model's outputs, or
            anything that the recipe's code raises.
    """
    _check_parameters(recipe)
    example = recipe.example_input()
    for name, data in (("eval_data", recipe.eval_data()), ("train_data", recipe.train_data())):
        inputs, targets = next(iter(data))
        _check_shape(recipe, name, inputs, example)
        if targets is None:
            raise RecipeError(f"{recipe.source}: {name}() gives inputs only; expected pairs (inputs, targets)")
        _check_targets(recipe, name, _outputs(recipe, name, inputs), targets)
    _check_calibration(recipe, recipe.calibration_data(), example)


def _check_parameters(recipe: Recipe) -> None:
    for name, tensor in recipe.model().state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise RecipeError(f"{recipe.source}: model(): {name} holds NaN or infinity; check the checkpoint it loads")


def _check_shape(recipe: Recipe, name: str, inputs: Tensor, example: Tensor) -> None:
    if inputs.shape[1:] != example.shape[1:] or inputs.dtype != example.dtype:
        raise RecipeError(
            f"{recipe.source}: {name}() gives inputs of shape {list(inputs.shape)} ({inputs.dtype}) but "
            f"example_input() is {list(example.shape)} ({example.dtype}); all but the batch dimension must agree"
        )
    if inputs.is_floating_point() and not bool(inputs.isfinite().all()):
        raise RecipeError(f"{recipe.source}: {name}(): the first batch of inputs holds NaN or infinity")


def _outputs(recipe: Recipe, name: str, inputs: Tensor) -> Tensor:
    what = f"model() on a batch of {name}() with shape {list(inputs.shape)}"
    with torch.no_grad():
        outputs = guarded(what, str(recipe.source), lambda: recipe.model()(inputs))
    if not isinstance(outputs, Tensor) or outputs.ndim == 0 or len(outputs) != len(inputs):
        shape = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise RecipeError(f"{recipe.source}: {what} gave {shape}; expected one tensor with a row for each input")
    if not bool(outputs.isfinite().all()):
        raise RecipeError(f"{recipe.source}: {what} gave NaN or infinity")
    return outputs


def _check_targets(recipe: Recipe, name: str, outputs: Tensor, targets: Tensor) -> None:
    where = f"{recipe.source}: {name}()"
    if recipe.classifies and not targets.is_floating_point():
        classes, most = outputs.shape[1] if outputs.ndim > 1 else 0, int(targets.max())
        if int(targets.min()) < 0 or most >= classes:
            found = f"{int(targets.min())} to {most}"
            raise RecipeError(f"{where}: targets are {found} but the model has {classes} outputs, 0 to {classes - 1}")
    loss = guarded(f"the loss on a batch of {name}()", str(recipe.source), lambda: recipe.loss(outputs, targets))
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not bool(loss.isfinite().all()):
        raise RecipeError(f"{where}: the loss gave {loss!r}; expected one finite number, as a tensor")
    _check_metric(recipe, name, outputs, targets)


def _check_metric(recipe: Recipe, name: str, outputs: Tensor, targets: Tensor) -> None:
    figure = guarded(
        f"the metric on a batch of {name}()",
        str(recipe.source),
        lambda: float(recipe.metric(outputs.numpy(), targets.numpy())),
    )
    if not math.isfinite(figure):
        raise RecipeError(f"{recipe.source}: {name}(): the metric gave {figure}; expected a finite number")


def _check_calibration(recipe: Recipe, data: Data, example: Tensor) -> None:
    inputs, targets = next(iter(data))
    _check_shape(recipe, "calibration_data", inputs, example)
    outputs = _outputs(recipe, "calibration_data", inputs)
    if targets is not None:
        _check_targets(recipe, "calibration_data", outputs, targets)
    elif not recipe.classifies:
        raise RecipeError(
            f"{recipe.source}: calibration_data() gives inputs only, which is enough for the default loss; "
            "with a loss of your own give pairs (inputs, targets)"
        )
