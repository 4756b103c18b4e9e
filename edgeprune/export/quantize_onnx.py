"""ONNX, int8: static quantization by ONNX Runtime, with the scheme that the device's kernels compute right."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeprune.errors import ExportError
from edgeprune.export.checks import Batch, gather_calibration
from edgeprune.export.files import write_file
from edgeprune.export.foreign import foreign
from edgeprune.export.runners import describe_file

_X86 = {"x86_64", "amd64", "i686", "i386", "x86"}
_ARM64 = {"aarch64", "arm64"}
_VNNI = {"avx512_vnni", "avx_vnni"}
_CHOICES = {"activations": ("uint8", "int8"), "weights": ("int8",), "layout": ("qdq", "qoperator")}


@dataclass(frozen=True)
class OnnxScheme:
    """How an int8 ONNX file holds numbers.

    `activations` is "uint8" or "int8", `weights` "int8" (one scale per output channel), `layout` "qdq" (float
    operators between QuantizeLinear and DequantizeLinear) or "qoperator" (integer operators); `reduce_range` keeps
    weights to 7 bits; `reason` says in words why.
    """

    activations: str
    weights: str
    reduce_range: bool
    layout: str
    reason: str

    def __post_init__(self) -> None:
        """Reject a name that is not among the choices.

        Raises:
            ExportError: with the valid names.
        """
        for field, valid in _CHOICES.items():
            if (given := getattr(self, field)) not in valid:
                raise ExportError(f"ONNX scheme: {field} {given!r}; choose from {', '.join(valid)}")

    def describe(self) -> str:
        """For people: `uint8 x int8 (7 bits), per channel, QDQ: reason`."""
        bits = " (7 bits)" if self.reduce_range else ""
        return f"{self.activations} x {self.weights}{bits}, per channel, {self.layout.upper()}: {self.reason}"


def choose_onnx_scheme(machine: str, cpu_flags: Collection[str]) -> OnnxScheme:
    """The scheme for a device, from `uname -m` and the flags or Features line of its /proc/cpuinfo.

    On x86 without VNNI the kernels add pairs of 8-bit products in 16 bits, which saturates with full-range weights
    (ONNX Runtime documentation, "Quantize ONNX models", and measured: 21.6 dB instead of 43.5 dB).
    """
    kind, flags = machine.lower(), {flag.lower() for flag in cpu_flags}
    if kind in _ARM64:
        how = "with dot product instructions" if "asimddp" in flags else "whose kernels widen each product"
        return OnnxScheme("int8", "int8", False, "qdq", f"{machine} {how}: full-range weights do not saturate")
    if kind in _X86 and (vnni := sorted(_VNNI & flags)):
        return OnnxScheme("uint8", "int8", False, "qdq", f"{machine} with {vnni[0]}: sums are kept in 32 bits")
    reason = "without VNNI: 16-bit sums saturate unless weights keep to 7 bits"
    if kind not in _X86:
        reason = "is not a known kind of processor: 7-bit weights saturate nowhere"
    return OnnxScheme("uint8", "int8", True, "qdq", f"{machine} {reason}")


def quantize_onnx(source: Path, target: Path, calibration: Iterable[Batch], scheme: OnnxScheme) -> None:
    """Quantize the float ONNX file `source` to int8, one scale per output channel; inputs and outputs stay float.

    Activation ranges are the minimum and maximum over all rows of `calibration` (batches `[N, ...]`). The graph is
    folded and its shapes inferred first, so that as much of it as possible becomes int8. Same inputs, same bytes.

    Raises:
        ExportError: `source` is no such file, the calibration data do not fit it, or the target cannot be written.
    """
    (signature,), _ = describe_file(source)
    rows = gather_calibration(calibration, signature.shape, signature.dtype)
    with foreign("int8 quantization", source):
        content = _quantize(source, signature.name, rows, scheme)
    write_file(target, content)


def quantize_onnx_dynamic(source: Path, target: Path, scheme: OnnxScheme) -> None:
    """Quantize the float ONNX file `source` to int8 weights, one scale per output channel, without calibration.

    The runtime finds the range of each activation as it runs, and always holds it in uint8 (there is no kernel for
    anything else); of `scheme` only `reduce_range` is used.

    Raises:
        ExportError: `source` is no such file, or the target cannot be written.
    """
    with foreign("dynamic int8 quantization", source):
        content = _quantize_dynamic(source, scheme.reduce_range)
    write_file(target, content)


def _quantize_dynamic(source: Path, reduce_range: bool) -> bytes:
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "quantized.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        model = onnx.load(prepared)
        del model.graph.value_info[:]  # the quantizer transposes weights of Gemm, and their old shapes would contradict
        quantization.quantize_dynamic(
            model, quantized, per_channel=True, reduce_range=reduce_range, weight_type=quantization.QuantType.QInt8
        )
        return quantized.read_bytes()


def _quantize(source: Path, name: str, rows: np.ndarray, scheme: OnnxScheme) -> bytes:
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    types = {"uint8": quantization.QuantType.QUInt8, "int8": quantization.QuantType.QInt8}
    layouts = {"qdq": quantization.QuantFormat.QDQ, "qoperator": quantization.QuantFormat.QOperator}

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # its base is untyped
        def __init__(self) -> None:
            self.rows = iter(rows)

        def get_next(self) -> dict[str, np.ndarray] | None:
            row = next(self.rows, None)
            return None if row is None else {name: row[None]}

    with tempfile.TemporaryDirectory() as folder:
        prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "quantized.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            quantized,
            Reader(),
            quant_format=layouts[scheme.layout],
            per_channel=True,
            reduce_range=scheme.reduce_range,
            activation_type=types[scheme.activations],
            weight_type=types[scheme.weights],
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        return quantized.read_bytes()
