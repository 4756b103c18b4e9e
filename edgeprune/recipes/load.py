"""Load a recipe, a Python file with the user's model and data, and check what it gives."""

from __future__ import annotations

import difflib
import math
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from edgeprune.core.metric import TOP1, Metric
from edgeprune.core.planning.candidates import WidthRule
from edgeprune.core.text import suggest
from edgeprune.errors import RecipeError
from edgeprune.recipes.built_in import BUILT_IN
from edgeprune.recipes.models import build_model
from edgeprune.recipes.reading import Data, first_inputs, plain_tensor, wrap_data
from edgeprune.recipes.user_code import guarded

REQUIRED = ("model", "train_data", "eval_data", "calibration_data")
VALIDATION = "validation_data"
"""A function that a recipe need not have."""
OPTIONAL = ("example_input", VALIDATION, "loss", "metric", "finetune", "widths", "labels", "preprocessing")
ALIKE = 0.8
"""A name of a recipe that is so much like one of OPTIONAL, which is missing, is taken for a slip."""


@dataclass(frozen=True)
class Finetune:
    """How a pruned net is trained on.

    `distillation` in [0, 1] weighs the original's answers against the targets; `temperature` softens them.
    `quantization_aware_epochs` come on top, with the rounding of int8 in the forward pass, where the target ships int8.
    """

    epochs: int = 10
    learning_rate: float = 0.02
    weight_decay: float = 5e-4
    distillation: float = 0.5
    temperature: float = 4.0
    quantization_aware_epochs: int = 0


@dataclass(frozen=True)
class Recipe:
    """A user's model, data, loss, metric and fine-tuning settings.

    `model`, `example_input` and the data functions do their work at the first call and give the same object after it.
    `loss(outputs, targets)` gives a scalar tensor; `metric(outputs, targets)` takes arrays, so that it can judge
    outputs that came from a board, and gives a number; it knows its name, its unit and which direction is better.
    """

    name: str
    source: Path
    model: Callable[[], nn.Module]
    train_data: Callable[[], Data]
    eval_data: Callable[[], Data]
    calibration_data: Callable[[], Data]
    example_input: Callable[[], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    metric: Metric
    finetune: Finetune = Finetune()
    validation_data: Callable[[], Data] | None = None
    """What states of a training are judged by, where the recipe has it: neither trained on nor judged by gates."""
    widths: Mapping[str, WidthRule | None] = field(default_factory=dict)
    """Rules for widths by the name of a layer or group; None: it stays whole."""
    labels: tuple[str, ...] = ()
    """Names of the classes, in the order of the outputs; exported files state them, and the preprocessing."""
    preprocessing: str = ""
    """What is done to raw data to make them inputs, in words."""
    model_notes: Callable[[], tuple[str, ...]] = tuple
    """What was changed in the model so that it can be traced and trained, for people."""
    slips: tuple[str, ...] = ()
    """Names in the file that nothing reads, and that look like one that is read, for people."""

    @property
    def classifies(self) -> bool:
        """Whether the loss is the default one, so that outputs are known to be logits of classes."""
        return self.loss is nn.functional.cross_entropy


def top1_accuracy_percent(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Share of rows whose highest output is at the target, in percent."""
    return float(100 * np.mean(outputs.argmax(1) == targets))


TOP1_ACCURACY = replace(TOP1, compute=top1_accuracy_percent)
"""The metric of a recipe that has none of its own."""


def load_recipe(name_or_path: str) -> Recipe:
    """Load a built-in recipe by name, or a Python file by path.

    Raises:
        RecipeError: no such recipe, the file raises, a function is missing, or a setting is not valid.
    """
    path = BUILT_IN.get(name_or_path, Path(name_or_path))
    if not path.is_file():
        raise RecipeError(f"recipe {name_or_path!r}: no such file or built-in recipe{suggest(name_or_path, BUILT_IN)}")
    if path.suffix != ".py":
        raise RecipeError(f"{name_or_path}: a recipe is a Python file; see `edgeprune recipes copy`")
    content = vars(_execute(path))
    for name in REQUIRED:
        if not callable(content.get(name)) and not (name == "model" and isinstance(content.get(name), str | Path)):
            raise RecipeError(f"{path}: function {name}() is missing{_near(name, content)}")
    if content.get(VALIDATION) is not None and not callable(content[VALIDATION]):
        kind = type(content[VALIDATION]).__name__
        raise RecipeError(f"{path}: {VALIDATION}: expected a function that gives the batches, found {kind}")
    return _recipe(name_or_path if name_or_path in BUILT_IN else path.stem, path, content)


def parse_finetune(settings: Any, where: str) -> Finetune:
    """Read fine-tuning settings from a mapping, or take a Finetune as it is.

    Raises:
        RecipeError: an unknown key, or a value out of range.
    """
    if isinstance(settings, Finetune):
        settings = {field.name: getattr(settings, field.name) for field in fields(settings)}
    if not isinstance(settings, Mapping):
        raise RecipeError(f"{where}: expected a dict of settings, found {type(settings).__name__}")
    names = [field.name for field in fields(Finetune)]
    for key, value in settings.items():
        if key not in names:
            raise RecipeError(f"{where}: unknown key {key!r}{suggest(str(key), names)}")
        _check_setting(key, value, where)
    return Finetune(**settings)


def _check_setting(key: str, value: Any, where: str) -> None:
    expected: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "epochs": ("a whole number from 0", lambda v: isinstance(v, int) and v >= 0),
        "quantization_aware_epochs": ("a whole number from 0", lambda v: isinstance(v, int) and v >= 0),
        "learning_rate": ("a number above 0", lambda v: v > 0),
        "weight_decay": ("a number from 0", lambda v: v >= 0),
        "distillation": ("a number from 0 to 1", lambda v: 0 <= v <= 1),
        "temperature": ("a number above 0", lambda v: v > 0),
    }
    words, is_valid = expected[key]
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not is_valid(value):
        raise RecipeError(f"{where}: {key}: expected {words}, found {value!r}")


def parse_widths(rules: Any, where: str) -> dict[str, WidthRule | None]:
    """Read rules for widths: `{"layer": "whole"}`, or a dict with `step`, `least` or `fixed` in place of "whole".

    Raises:
        RecipeError: an unknown key, or a value that is no number of channels.
    """
    if not isinstance(rules, Mapping):
        raise RecipeError(f"{where}: expected a dict by the name of a layer, found {type(rules).__name__}")
    return {str(name): _parse_width_rule(rule, f"{where}: {name}") for name, rule in rules.items()}


def _parse_width_rule(rule: Any, where: str) -> WidthRule | None:
    names = [field.name for field in fields(WidthRule)]
    if rule == "whole":
        return None
    if not isinstance(rule, Mapping) or not rule:
        raise RecipeError(f'{where}: expected "whole", or a dict with {", ".join(names)}; found {rule!r}')
    for key, value in rule.items():
        if key not in names:
            raise RecipeError(f"{where}: unknown key {key!r}{suggest(str(key), names)}")
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise RecipeError(f"{where}: {key}: expected a number of channels from 1, found {value!r}")
    return WidthRule(**rule)


def _parse_labels(labels: Any, where: str) -> tuple[str, ...]:
    if not isinstance(labels, tuple | list) or not all(isinstance(label, str) for label in labels):
        raise RecipeError(f"{where}: expected a list of the classes' names, found {labels!r}")
    return tuple(labels)


def _parse_text(text: Any, where: str) -> str:
    if not isinstance(text, str):
        raise RecipeError(f"{where}: expected a text, found {type(text).__name__}")
    return text


def _execute(path: Path) -> types.ModuleType:
    source = str(path)
    module = types.ModuleType(f"edgeprune_recipe_{path.stem}")
    module.__file__ = source
    folder = str(path.resolve().parent)
    if path not in BUILT_IN.values() and folder not in sys.path:
        sys.path.append(folder)  # a recipe may import what lies beside it
    try:
        code = compile(path.read_bytes(), source, "exec")
    except (SyntaxError, ValueError, OSError) as exc:
        line = f":{exc.lineno}" if isinstance(exc, SyntaxError) else ""
        raise RecipeError(f"{source}{line}: cannot be read: {exc.args[0]}") from exc
    sys.modules[module.__name__] = module
    guarded("the recipe", source, lambda: exec(code, vars(module)))
    return module


def _near(name: str, content: Mapping[str, Any]) -> str:
    functions = [
        key for key, value in content.items() if callable(value) and getattr(value, "__module__", "") != "torch"
    ]
    words = suggest(name, functions)
    return words if "did you mean" in words else "; see `edgeprune recipes copy digits-resnet8` for a complete file"


def _recipe(name: str, path: Path, content: Mapping[str, Any]) -> Recipe:
    source = str(path)

    def data(function: str) -> Callable[[], Data]:
        return cache(lambda: wrap_data(guarded(f"{function}()", source, content[function]), function, source, example))

    eval_data = data("eval_data")
    example = cache(lambda: _example_input(content.get("example_input"), eval_data, source))
    model = cache(lambda: build_model(content["model"], source, example))
    return Recipe(
        name=name,
        source=path,
        model=lambda: model().module,
        train_data=data("train_data"),
        eval_data=eval_data,
        calibration_data=data("calibration_data"),
        example_input=example,
        loss=_loss(content.get("loss"), source) or nn.functional.cross_entropy,
        metric=_metric(content.get("metric"), source),
        finetune=parse_finetune(content.get("finetune", {}), f"{path}: finetune"),
        validation_data=data(VALIDATION) if callable(content.get(VALIDATION)) else None,
        widths=parse_widths(content.get("widths", {}), f"{path}: widths"),
        labels=_parse_labels(content.get("labels", ()), f"{path}: labels"),
        preprocessing=_parse_text(content.get("preprocessing", ""), f"{path}: preprocessing"),
        model_notes=lambda: model().notes,
        slips=find_slips(content),
    )


def find_slips(content: Mapping[str, Any]) -> tuple[str, ...]:
    """What is said of a recipe's names that are almost those of OPTIONAL, where these are missing."""
    missing = [name for name in OPTIONAL if name not in content]
    own = [name for name in content if not name.startswith("_") and name not in (*REQUIRED, *OPTIONAL)]
    nearest = {name: difflib.get_close_matches(name.lower(), missing, 1, ALIKE) for name in own}
    return tuple(f"{name} is read by nothing; did you mean {close[0]}?" for name, close in nearest.items() if close)


def _loss(loss: Any, source: str) -> Callable[..., Any] | None:
    if loss is None or loss is nn.functional.cross_entropy:
        return None
    if isinstance(loss, type):
        raise RecipeError(f"{source}: loss is the class {loss.__name__}; make one: loss = {loss.__name__}()")
    if not callable(loss):
        raise RecipeError(f"{source}: loss: expected a function (outputs, targets), found {type(loss).__name__}")
    return _guarded_pair("loss()", loss, source)


def _metric(metric: Any, source: str) -> Metric:
    if metric is None:
        return TOP1_ACCURACY
    if not isinstance(metric, Metric) or metric.compute is None:
        name = getattr(metric, "__name__", "function")
        raise RecipeError(
            f"{source}: metric: say its name and which direction is better: from edgeprune.core.metric import Metric, "
            f'then metric = Metric("F1", {name}, better="higher"), or "lower"; with unit="K" where it has one'
        )
    if not callable(metric.compute):
        raise RecipeError(f"{source}: metric: expected a function (outputs, targets), found {metric.compute!r}")
    return replace(metric, compute=_guarded_pair("metric()", metric.compute, source))


def _guarded_pair(name: str, function: Callable[[Any, Any], Any], source: str) -> Callable[..., Any]:
    def call(outputs: Any, targets: Any) -> Any:
        description = f"{name} of {_say_shape(outputs)} and {_say_shape(targets)}"
        return guarded(description, source, lambda: function(outputs, targets))

    return call


def _say_shape(value: Tensor | np.ndarray) -> str:
    return f"{'a tensor' if isinstance(value, Tensor) else 'an array'} {list(value.shape)}"


def _example_input(function: Any, eval_data: Callable[[], Data], source: str) -> Tensor:
    if function is None:
        return first_inputs(eval_data())
    if not callable(function):
        raise RecipeError(f"{source}: example_input: expected a function, found {type(function).__name__}")
    example = plain_tensor(guarded("example_input()", source, function), f"{source}: example_input()")
    if len(example) != 1:
        raise RecipeError(
            f"{source}: example_input() gave {list(example.shape)}; expected a tensor with a batch dimension of 1"
        )
    return example
