"""The libraries that make TFLite files: an extra, imported when used."""

from __future__ import annotations

import importlib
from typing import Any

from edgeprune.extras import comes_with


def import_library(module: str) -> Any:
    """A module of litert-torch, ai-edge-quantizer or ai-edge-litert.

    Raises:
        MissingExtra: it is not installed.
    """
    with comes_with("tflite"):
        return importlib.import_module(module)
