"""Weights that are computed from others each time (masks, weight norm, spectral norm), turned into plain ones.

Of what cannot be sliced nothing need stay then: in eval mode the vectors of spectral norm, say, are constants.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from edgeprune.errors import GraphError


def fold_weights(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """A model in eval mode whose weights are all plain parameters, and the names of those that were not.

    Masks and norms of `torch.nn.utils` and every parametrization are multiplied out in a copy, which leaves the outputs
    as they are; where there are none, it is the model itself.

    Raises:
        GraphError: the model cannot be copied.
    """
    if not any(_is_computed(module) for module in model.modules()):
        return model, ()
    folded = copy_model(model)
    names = []
    for path, module in folded.named_modules():
        for name in _fold_(module):
            names.append(f"{path}.{name}".lstrip("."))
    return folded, tuple(names)


def _fold_(module: nn.Module) -> Iterator[str]:
    """Fold what computes a module's weights; gives their names."""
    for hook in list(module._forward_pre_hooks.values()):
        if isinstance(hook, prune.BasePruningMethod):
            yield hook._tensor_name
            prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]
        elif isinstance(hook, WeightNorm):
            yield hook.name
            remove_weight_norm(module, hook.name)
        elif isinstance(hook, SpectralNorm):
            yield hook.name
            remove_spectral_norm(module, hook.name)
    if parametrize.is_parametrized(module):
        yield from _fold_parametrizations_(module)


def _fold_parametrizations_(module: nn.Module) -> Iterator[str]:
    """As `remove_parametrizations`, which would change the class of the model that the module was copied from too."""
    parametrizations = dict(cast(nn.ModuleDict, module.parametrizations).items())
    values = {name: getattr(module, name).detach().clone() for name in parametrizations}
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    for name, value in values.items():
        yield name
        trained = [parameter.requires_grad for parameter in parametrizations[name].parameters()]
        if trained:
            module.register_parameter(name, nn.Parameter(value, requires_grad=any(trained)))
        else:
            module.register_buffer(name, value)


def _is_computed(module: nn.Module) -> bool:
    hooks = (prune.BasePruningMethod, WeightNorm, SpectralNorm)
    return parametrize.is_parametrized(module) or any(
        isinstance(hook, hooks) for hook in module._forward_pre_hooks.values()
    )


def copy_model(model: nn.Module) -> nn.Module:
    """A deep copy of a model, whatever tensors with a history it has kept: these become plain ones.

    Raises:
        GraphError: something that it holds cannot be copied.
    """
    copies = {id(tensor): tensor.detach().clone() for tensor in _tensors(model, set()) if not tensor.is_leaf}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch copies graphs in a way that it deprecates
            return copy.deepcopy(model, copies)
    except Exception as exc:
        raise GraphError(f"{type(model).__name__}: cannot be copied: {exc}; keep no open files or locks on it") from exc


def _tensors(value: Any, visited: set[int]) -> Iterator[Tensor]:
    """Every tensor within an object, at any depth of containers and attributes."""
    if id(value) in visited:
        return
    visited.add(id(value))
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for element in list(value.values()):
            yield from _tensors(element, visited)
    elif isinstance(value, list | tuple | set | frozenset):
        for element in value:
            yield from _tensors(element, visited)
    elif not isinstance(value, type):
        yield from _tensors(getattr(value, "__dict__", None) or {}, visited)
