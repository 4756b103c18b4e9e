"""Hardware-aware pruning, quantization and deployment of PyTorch models to edge devices.

    import edgeprune as ep

What can be used from Python stands in `__all__`, is explained in docs/python.md, and is imported when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeprune.deployment import Deployment, deploy
    from edgeprune.measuring import measure
    from edgeprune.net import Net, export, load, plan, prune, save, trace
    from edgeprune.sweeping import Sweep, sweep

_HOMES = {
    **dict.fromkeys(("Net", "trace", "plan", "prune", "save", "load", "export"), "edgeprune.net"),
    "measure": "edgeprune.measuring",
    **dict.fromkeys(("Deployment", "deploy"), "edgeprune.deployment"),
    **dict.fromkeys(("Sweep", "sweep"), "edgeprune.sweeping"),
}

__all__ = [
    "Deployment",
    "Net",
    "Sweep",
    "deploy",
    "export",
    "load",
    "measure",
    "plan",
    "prune",
    "save",
    "sweep",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgeprune' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
