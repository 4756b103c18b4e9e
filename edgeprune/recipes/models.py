"""The model of a recipe, be it a module, an exported program or a `.pt2` file, made ready to be run and traced."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.nn.parameter import is_lazy

from edgeprune.errors import GraphError, RecipeError
from edgeprune.graph.batch import open_batch
from edgeprune.graph.precision import widen
from edgeprune.graph.storage import load_model
from edgeprune.graph.trace import graph_of
from edgeprune.recipes.user_code import guarded

SEED = 0


@dataclass(frozen=True)
class Model:
    """The module that a recipe's `model` is, and what was changed in it, for people."""

    module: nn.Module
    notes: tuple[str, ...] = ()


def build_model(definition: Any, source: str, example: Callable[[], Tensor]) -> Model:
    """What a recipe's `model` is, in eval mode, on the processor, with parameters that can be trained.

    `definition` is a function or the thing itself: a module, an exported program, or the path of a `.pt2`, seen from
    the recipe's folder. Weights in float16, bfloat16 or float64 become float32 where they do not take `example`
    otherwise; all parameters are trained where none is said to be.

    Raises:
        RecipeError: it is none of these, or cannot be used; says why.
    """
    torch.manual_seed(SEED)
    is_function = callable(definition) and not isinstance(definition, nn.Module | ExportedProgram)
    network = guarded("model()", source, definition) if is_function else definition
    is_program = isinstance(network, str | Path | ExportedProgram) or _is_exported(network)
    model, dtypes = _read_program(network, source, example) if is_program else (network, ())
    _check_module(model, source)
    if not is_program:
        dtypes = _settle_precision_(model.eval().cpu(), example())
    notes = [describe_precision(dtypes)] if dtypes else []
    if not any(value.requires_grad for value in model.parameters()):
        notes.append("no parameter was said to be trained (requires_grad): all are")
        for value in model.parameters():
            value.requires_grad_(value.is_floating_point())
    return Model(model, tuple(notes))


def describe_precision(dtypes: Collection[torch.dtype]) -> str:
    """For people: what became of weights that were in other floats than float32."""
    names = " and ".join(str(kind).removeprefix("torch.") for kind in sorted(dtypes, key=str))
    exact = "rounded to float32, which files hold" if torch.float64 in dtypes else "widened to float32, which is exact"
    return f"weights or casts in {names}: {exact}"


def _is_exported(network: Any) -> bool:
    """Whether it is a graph that torch.export has made: what `.module()` of an exported program gives."""
    inputs = network.graph.find_nodes(op="placeholder") if isinstance(network, GraphModule) else []
    return bool(inputs) and all("val" in node.meta for node in inputs)


def _read_program(
    exported: str | Path | ExportedProgram | GraphModule, source: str, example: Callable[[], Tensor]
) -> tuple[GraphModule, tuple[torch.dtype, ...]]:
    """The graph of an exported program, for any batch and in float32, and what other floats it was in."""
    where = f"{source}: model"
    try:
        if isinstance(exported, ExportedProgram | GraphModule):
            program = graph_of(exported) if isinstance(exported, ExportedProgram) else exported
        else:
            path = Path(source).resolve().parent / exported
            where = str(path)
            if path.suffix != ".pt2":
                raise GraphError(
                    "expected a .pt2; a network in ONNX is read by edgeprune.recipes.onnx_model.load_onnx, and weights "
                    "alone by the module that they belong to"
                )
            program = load_model(path)
        return widen(open_batch(program), example())
    except GraphError as exc:
        text = str(exc)
        raise RecipeError(text if text.startswith(where) else f"{where}: {text}") from exc


def _check_module(model: Any, source: str) -> None:
    """Require a module that torch.export can take, with all its weights there.

    Raises:
        RecipeError: it is none.
    """
    where = f"{source}: model()"
    if isinstance(model, type):
        raise RecipeError(f"{where} gave the class {model.__name__}; make one: {model.__name__}(...)")
    if isinstance(model, torch.jit.ScriptModule):
        raise RecipeError(f"{where} gave a TorchScript module; give the module that was scripted, or a .pt2 of it")
    if not isinstance(model, nn.Module):
        hint = "; load it into the module: net.load_state_dict(...)" if isinstance(model, dict) else ""
        raise RecipeError(f"{where} gave {type(model).__name__}; expected a torch.nn.Module, or a .pt2's path{hint}")
    for name, value in _tensors(model):
        if is_lazy(value):
            raise RecipeError(f"{where}: {name} has no size yet (a lazy layer); run the net once on a batch in model()")
        if value.is_meta:
            raise RecipeError(f"{where}: {name} is on the meta device, which holds no values; load the weights")
        if value.is_quantized or value.is_sparse:
            raise RecipeError(f"{where}: {name} is quantized or sparse; give the float net before that")


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _settle_precision_(model: nn.Module, example: Tensor) -> tuple[torch.dtype, ...]:
    """Turn weights into float32 where they are not, and the model does not take float32 inputs as it is.

    Gives what they were.
    """
    dtypes = {value.dtype for _, value in _tensors(model) if value.is_floating_point()} - {torch.float32}
    if not dtypes:
        return ()
    try:
        with torch.no_grad():
            model(example.clone())
    except Exception:
        model.float()
        return tuple(dtypes)
    return ()  # its forward casts what it takes: its graph is widened when it is traced
