"""What TFLite's native `benchmark_model` says of itself and of the delegates that it applied: pure parsers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

DELEGATES: Mapping[str, str] = MappingProxyType({"cpu": "xnnpack", "gpu": "gpu", "nnapi": "nnapi"})
"""The delegate of each provider: its flag is `--use_NAME` (tensorflow/lite/tools/delegates/README.md). On the CPU it is
the one that LiteRT takes by itself, asked for by name, as a binary may be built without that default."""
GPU_FLAGS = ("--gpu_precision_loss_allowed=false",)
"""float32 arithmetic, as the file has it; by itself the GPU delegate computes in float16."""
FLAG = re.compile(r"^\s*--([a-z0-9_]{1,60})=", re.MULTILINE)
REPLACED = re.compile(
    r"Replacing ([0-9]{1,6})(?: out of ([0-9]{1,6}))? node\(s\) with delegate \((?:TfLite)?(\w{1,60}?)\) node"
)
APPLIED = re.compile(
    r"Explicitly applied (\w{1,20}) delegate, and the model graph will be (completely|partially) executed"
)
NOT_APPLIED = re.compile(
    r"Though (\w{1,20}) delegate is explicitly applied, the model graph will not be executed by the delegate"
)


def parse_flags(text: str) -> frozenset[str]:
    """The names of the flags that `--help` lists; empty where it is the help of something else."""
    flags = frozenset(FLAG.findall(text))
    return flags if {"graph", "num_runs"} <= flags else frozenset()


def delegate_flags(provider: str) -> tuple[str, ...]:
    """The flags that ask for a provider."""
    return (f"--use_{DELEGATES[provider]}=true", *(GPU_FLAGS if provider == "gpu" else ()))


def parse_share(text: str, provider: str) -> float | None:
    """The share of a net's nodes that a provider took, from what the runtime and the benchmark say; None where they
    do not tell it.

    Two delegates may take nodes one after the other (an NNAPI that takes 5 of 64 leaves the rest to XNNPACK), so that
    only lines count that name the delegate.
    """
    delegate = DELEGATES[provider]
    if any(name.lower() == delegate for name in NOT_APPLIED.findall(text)):
        return 0.0
    rows = [(count, total) for count, total, name in REPLACED.findall(text) if name.lower().startswith(delegate)]
    nodes = sum(int(total) for _, total in rows if total)
    if nodes:
        return min(1.0, sum(int(count) for count, total in rows if total) / nodes)
    applied = {name.lower(): how for name, how in APPLIED.findall(text)}
    return 1.0 if applied.get(delegate) == "completely" else None
