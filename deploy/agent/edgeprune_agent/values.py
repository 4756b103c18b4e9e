"""Inputs that are made up, and numbers as a model holds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeprune_agent.errors import AgentError


def require_inputs(inputs: Sequence[Any]) -> None:
    """Require a model that takes something.

    Raises:
        AgentError: it does not, so that a runtime computes it once, and nothing is timed.
    """
    if not inputs:
        raise AgentError("model", "it has no inputs, so that there is nothing to time: runtimes compute it beforehand")


def quantize(row: Any, detail: dict[str, Any]) -> Any:
    """Floats as the model's whole numbers, by its input's scale and zero point; its own type as it is.

    Raises:
        AgentError: another type.
    """
    import numpy

    scale, zero = detail["quantization"]
    dtype = numpy.dtype(detail["dtype"])
    if dtype == row.dtype:
        return row
    if dtype.kind not in "iu" or row.dtype.kind != "f" or not scale:
        raise AgentError("request", f"inputs are {row.dtype}, but the model takes {dtype}")
    bounds = numpy.iinfo(dtype)
    return numpy.clip(numpy.rint(row / scale) + zero, bounds.min, bounds.max).astype(dtype)


def dequantize(values: Any, detail: dict[str, Any], dtype: Any) -> Any:
    """A quantized output as floats, where floats came in."""
    scale, zero = detail["quantization"]
    if values.dtype.kind not in "iu" or dtype.kind != "f" or not scale:
        return values
    return ((values.astype("float32") - zero) * scale).astype("float32")


def make_input(shape: Any, dtype: Any) -> Any:
    """Repeatable values: normal floats, bytes over their whole range, small other whole numbers."""
    import numpy

    random = numpy.random.default_rng(0)
    kind = numpy.dtype(dtype)
    if kind.kind == "f":
        return random.standard_normal(shape).astype(kind)
    if kind.itemsize == 1 and kind.kind in "iu":
        bounds = numpy.iinfo(kind)
        return random.integers(bounds.min, bounds.max + 1, shape).astype(kind)
    return random.integers(0, 2, shape).astype(kind)
