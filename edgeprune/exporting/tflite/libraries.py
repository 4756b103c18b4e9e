"""The libraries that make TFLite files: an extra, imported when used."""

from __future__ import annotations

import importlib
from typing import Any

from edgeprune.errors import ExportError


def import_library(module: str) -> Any:
    """A module of litert-torch or ai-edge-quantizer.

    Raises:
        ExportError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        package = module.partition(".")[0].replace("_", "-")
        raise ExportError(f"TFLite: {package} cannot be imported; run: pip install 'edgeprune[tflite]'") from exc
