"""The parameters of an estimated profile, and what is assumed of them before anything was measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Assumption:
    """A parameter before any measurement: what it is, how sure that is, and how boards differ in it.

    `spread` is the standard deviation of the logarithm of what is common to all boards and runtimes; `varies` that of
    what one of them differs by from the next.
    """

    value: float
    spread: float
    varies: float


PRIOR = {
    # Shares of the core's documented peak; those behind the first are ratios to it, so that they move together.
    "efficiency": Assumption(0.45, 0.4, 0.25),
    "pointwise": Assumption(1.2, 0.25, 0.2),
    "depthwise": Assumption(0.6, 0.4, 0.35),
    "grouped": Assumption(0.6, 0.4, 0.25),
    "linear": Assumption(0.8, 0.4, 0.25),
    "winograd": Assumption(1.8, 0.3, 0.2),
    # Multiply-accumulates that beginning and storing one sum of products is worth, and that packing one value is.
    "starts": Assumption(16.0, 0.7, 0.5),
    "packing": Assumption(4.0, 0.7, 0.6),
    # Ratios to fp32, each at its own peak: of all kernels, then of single kinds to the others; of work without weights.
    "fp16": Assumption(0.8, 0.3, 0.2),
    "int8": Assumption(0.75, 0.35, 0.25),
    "int8_pointwise": Assumption(1.0, 0.2, 0.15),
    "int8_depthwise": Assumption(1.0, 0.3, 0.25),
    "int8_winograd": Assumption(0.6, 0.3, 0.25),
    "int8_simple": Assumption(1.4, 0.4, 0.4),
    # Share of the documented memory bandwidth; bytes a cycle from the cache.
    "memory": Assumption(0.35, 0.3, 0.2),
    "cache": Assumption(4.0, 0.7, 0.4),
    # Work without weights: values that pools see, that are added, that go through an activation, at fp32, for each
    # multiply-accumulate of the peak.
    "pool": Assumption(0.2, 0.8, 0.6),
    "add": Assumption(0.5, 0.7, 0.5),
    "activation": Assumption(0.1, 0.7, 0.6),
    # Thousands of cycles that an operator costs whatever its size, and an inference beside its operators.
    "call_kcycles": Assumption(18.0, 0.7, 0.5),
    "net_kcycles": Assumption(30.0, 0.7, 1.0),
    # What each further core adds, as a share of the first: of all work, then of single kinds to that; of memory. And
    # what each further core adds to the cost of an operator, as a share of it.
    "parallel": Assumption(0.6, 0.35, 0.45),
    "parallel_depthwise": Assumption(1.0, 0.3, 0.25),
    "parallel_simple": Assumption(0.8, 0.3, 0.25),
    "parallel_memory": Assumption(0.25, 0.5, 0.4),
    "sync": Assumption(0.5, 0.5, 0.4),
    # A factor on the whole.
    "speed": Assumption(1.0, 0.05, 0.15),
}
PARAMETERS = tuple(PRIOR)
