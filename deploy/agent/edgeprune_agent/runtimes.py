"""The inference runtimes of a board, behind one face: each is a module `runtime_NAME` of this package.

Such a module has FORMAT, the suffix of its files, PACKAGES, which provide it (the preferred one first, each with what
is imported of it), and `load(module, model, request)`, which gives a Loaded. It may have `share_nodes(module, path,
request)`, what share of the nodes each of its execution providers ran, and `profile_nodes(module, path, request,
events)`, what each node takes.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import pkgutil
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import edgeprune_agent
from edgeprune_agent.errors import AgentError, first_line

PREFIX = "runtime_"


class Loaded(NamedTuple):
    """A model in its runtime.

    `run` infers on inputs that are in place; `predict` maps one input `[1, ...]` to the first output. `shapes` are the
    inputs' by name, first the one that `predict` takes.
    """

    run: Callable[[], Any]
    predict: Callable[[Any], Any]
    shapes: dict[str, tuple[int, ...]]


@functools.lru_cache(maxsize=None)
def list_runtimes() -> tuple[str, ...]:
    """Names of the runtimes that this agent knows; looked up once, as a cold start is timed through here."""
    modules = (module.name for module in pkgutil.iter_modules(edgeprune_agent.__path__))
    return tuple(name[len(PREFIX) :] for name in modules if name.startswith(PREFIX))


def find_runtime(name: object) -> Any:
    """The module of this package for a runtime.

    Raises:
        AgentError: there is none.
    """
    runtimes = list_runtimes()
    if name not in runtimes:
        raise AgentError("request", f"unknown runtime {name!r}; expected {' or '.join(runtimes)}")
    return importlib.import_module(f"edgeprune_agent.{PREFIX}{name}")


@functools.lru_cache(maxsize=None)
def list_formats() -> tuple[str, ...]:
    """Suffixes of the files that runtimes run."""
    return tuple({find_runtime(name).FORMAT: None for name in list_runtimes()})


def find_versions() -> dict[str, str]:
    """Version of each package of an inference runtime that this interpreter has."""
    versions = {}
    for package in (package for name in list_runtimes() for package in find_runtime(name).PACKAGES):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def import_runtime(name: str) -> Any:
    """The library of a runtime.

    Raises:
        AgentError: it is unknown, not installed, or does not load here.
    """
    packages, versions = find_runtime(name).PACKAGES, find_versions()
    installed = [package for package in packages if package in versions]
    if not installed:
        raise AgentError("runtime", f"{' or '.join(packages)} is not installed for {sys.executable}")
    try:
        importlib.import_module("numpy")
        return importlib.import_module(packages[installed[0]])
    except Exception as exc:
        raise AgentError("runtime", f"{installed[0]} is installed but does not load: {first_line(exc)}") from exc


def load_model(name: str, model: str | bytes, request: dict[str, Any]) -> Loaded:
    """Load a model from its file or its content, with repeatable inputs in place, as a request wants it run.

    Raises:
        AgentError: the runtime is missing or refuses the model, or sizes of its inputs are open.
    """
    library = import_runtime(name)
    try:
        loaded: Loaded = find_runtime(name).load(library, model, request)
        return loaded
    except AgentError:
        raise
    except MemoryError as exc:
        raise AgentError("memory", "out of memory while a model was loaded") from exc
    except Exception as exc:
        raise AgentError("model", f"{name} cannot load it: {first_line(exc)}") from exc


def share_nodes(path: str, request: dict[str, Any]) -> dict[str, float]:
    """The share of the nodes that each execution provider ran; empty where the runtime has but one way to compute.

    Raises:
        AgentError: another ran some than was asked for.
    """
    module = find_runtime(request["runtime"])
    if not hasattr(module, "share_nodes"):
        return {}
    shares: dict[str, float] = module.share_nodes(import_runtime(request["runtime"]), path, request)
    return shares
