"""Which versions were tried together, and where those that are installed differ from them."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgeprune.shipped import PACKAGE

DECIDING = (
    *("torch", "onnx", "onnxruntime", "onnxscript", "numpy", "scipy", "safetensors", "paramiko", "click"),
    *("litert-torch", "ai-edge-litert", "ai-edge-quantizer"),
)
"""Packages whose inner workings edgeprune leans on."""
PINNED = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+)$", re.MULTILINE)


def find_constraints() -> Path:
    """The file of versions that were tried together: in the wheel, else in the checkout."""
    inside = PACKAGE / "_shipped" / "constraints.txt"
    return inside if inside.is_file() else PACKAGE.parent / "constraints.txt"


def describe_untried() -> str:
    """Installed versions that were not tried together, for people; empty where all were, or nothing tells."""
    try:
        pinned = dict(PINNED.findall(find_constraints().read_text()))
    except OSError:
        return ""
    installed = {name: find_version(name).partition("+")[0] for name in DECIDING if name in pinned}
    apart = [
        f"{name} {own} (tried: {pinned[name]})" for name, own in installed.items() if own not in ("", pinned[name])
    ]
    if not apart:
        return ""
    return f"versions that were not tried: {', '.join(apart)}; pip install --constraint {find_constraints()} edgeprune"


def find_version(name: str) -> str:
    """The version of an installed package; empty where it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
