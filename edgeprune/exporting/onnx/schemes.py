"""Schemes of static int8 in ONNX by name, for targets that do not leave the choice to the processor."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from edgeprune.core.formats import AUTO, FORMATS
from edgeprune.exporting.onnx.quantize import OnnxScheme, choose_onnx_scheme


def find_scheme(name: str, machine: str, cpu_flags: Collection[str]) -> OnnxScheme:
    """The scheme of that name, one that ONNX has, or for AUTO the one that suits the processor.

    `machine` is from `uname -m`, `cpu_flags` are the flags or Features line of its /proc/cpuinfo.
    """
    fitting = choose_onnx_scheme(machine, cpu_flags)
    if name == AUTO:
        return fitting
    scheme = SCHEMES[name]
    same = replace(fitting, reason="") == replace(scheme, reason="")
    reason = fitting.reason if same else f"in place of {fitting.describe()}"
    return replace(scheme, reason=f"as the target asks, {reason}")


SCHEMES = {
    name: OnnxScheme(
        activations="int8" if name.startswith("s8") else "uint8",
        weights="int8",
        reduce_range="7bit" in name,
        layout="qoperator" if name.endswith("qoperator") else "qdq",
        reason="",
    )
    for name in FORMATS["onnx"].int8_schemes
}
