"""Where nets are trained and evaluated: on this machine's processor, or on an accelerator that torch finds here.

A net stays where it was moved to; whatever runs it brings its batches there, and its outputs back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.node import map_aggregate

from edgeprune.core.accelerators import ACCELERATORS, AUTO, KINDS
from edgeprune.core.text import suggest
from edgeprune.errors import UsageError
from edgeprune.graph.trace import named_tensors

CPU = torch.device("cpu")


def find_accelerator(name: str = AUTO) -> torch.device:
    """The device of this name; of "auto" the first accelerator that torch finds here, else the processor.

    Raises:
        UsageError: no such name, or torch finds none of that kind here.
    """
    if name not in ACCELERATORS:
        raise UsageError(f"accelerator: {name!r}{suggest(name, ACCELERATORS)}")
    present = [kind for kind in KINDS if _is_present(kind)]
    if name == AUTO:
        return torch.device(present[0] if present else CPU.type)
    if name != CPU.type and name not in present:
        raise UsageError(
            f"accelerator {name}: torch {torch.__version__} finds {', '.join([CPU.type, *present])} here; leave "
            f"--accelerator out, or install a build of torch for {name}"
        )
    return torch.device(name)


def _is_present(kind: str) -> bool:
    return torch.cuda.is_available() if kind == "cuda" else torch.backends.mps.is_available()


def move_(program: GraphModule, device: torch.device) -> GraphModule:
    """Bring a program to a device: its tensors, and the devices that its graph names for what it makes itself."""
    program.to(device)
    for node in program.graph.nodes:
        node.args, node.kwargs = map_aggregate((node.args, node.kwargs), lambda part: _replace_device(part, device))
    program.recompile()
    return program


def _replace_device(part: Any, device: torch.device) -> Any:
    return device if isinstance(part, torch.device) else part


def device_of(program: torch.nn.Module) -> torch.device:
    """Where a program's tensors are; one without any runs on the processor."""
    return next((value.device for value in named_tensors(program).values()), CPU)


def bring(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; this very one where it is there."""
    return tensor.to(device, non_blocking=True)


def wait_for(device: torch.device) -> None:
    """Wait until a device has done all that it was given, so that a clock tells its time."""
    if device != CPU:
        torch.accelerator.synchronize(device)
