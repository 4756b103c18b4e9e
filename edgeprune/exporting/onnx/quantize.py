"""ONNX, int8: static quantization by ONNX Runtime, with the scheme that the device's kernels compute right."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeprune.core.quantizing.ranges import Range
from edgeprune.errors import ExportError
from edgeprune.exporting.checks import Batch, gather_calibration
from edgeprune.exporting.files import write_file
from edgeprune.exporting.foreign import foreign
from edgeprune.exporting.onnx.biases import fit_onnx_biases
from edgeprune.exporting.quantizing.observe import find_endless, is_endless, observe_extremes
from edgeprune.exporting.runners import describe_file

_X86 = {"x86_64", "amd64", "i686", "i386", "x86"}
_ARM64 = {"aarch64", "arm64"}
_VNNI = {"avx512_vnni", "avx_vnni"}
FLOAT_RESULTS = ["Gemm"]
"""Operators whose integer kernel can give floats: a net's output, which no integer operator reads, is not rounded.
Where layers stay in float it is: else one that a float layer reads behind a ReLU would be fused to a float operator."""
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
            if (choice := getattr(self, field)) not in valid:
                raise ExportError(f"ONNX scheme: {field} {choice!r}; choose from {', '.join(valid)}")

    @property
    def levels(self) -> int:
        """Weights are held as integers from -levels to levels."""
        return 64 if self.reduce_range else 127

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
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        prepare_onnx(source, prepared)
        write_file(target, quantize_prepared(prepared, observe_extremes(prepared, rows), scheme))


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


def prepare_onnx(source: Path, target: Path) -> None:
    """Fold what is constant in a float ONNX file and infer its shapes, so that as much as possible becomes int8.

    Raises:
        ExportError: `source` is no such file.
    """
    with foreign("int8 quantization", source):
        from onnxruntime.quantization.shape_inference import quant_pre_process

        quant_pre_process(str(source), str(target), skip_symbolic_shape=True)
        _own_biases(target)


def _own_biases(path: Path) -> None:
    """Give each layer a bias of its own: ONNX Runtime holds a shared one in steps of the first layer's input only."""
    import onnx

    model = onnx.load(path)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    owned: set[str] = set()
    for node in model.graph.node:
        bias = node.input[2] if node.op_type in ("Conv", "Gemm") and len(node.input) > 2 else ""
        if bias in owned:
            node.input[2] = f"{node.name}.{bias}"
            model.graph.initializer.add().CopyFrom(stored[bias])
            model.graph.initializer[-1].name = node.input[2]
        elif bias in stored:
            owned.add(bias)
    if len(model.graph.initializer) > len(stored):
        onnx.save(model, path)


def _find_grouped_transposed(path: Path) -> list[str]:
    """Transposed convolutions in groups: no axis of their weights is that of the output channels, which breaks the
    quantizer. The runtime computes every transposed convolution in float."""
    import onnx

    nodes = onnx.load(path, load_external_data=False).graph.node
    grouped = [
        node for node in nodes if any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)
    ]
    return [node.name for node in grouped if node.op_type == "ConvTranspose"]


def quantize_prepared(
    prepared: Path, ranges: Mapping[str, Range], scheme: OnnxScheme, floats: Collection[str] = ()
) -> bytes:
    """The int8 file of a prepared one, with these ranges of its tensors; nodes named in `floats` stay as they are, as
    do those that read or give infinity.

    Raises:
        ExportError: it cannot be quantized.
    """
    with foreign("int8 quantization", prepared):
        from onnxruntime import quantization
        from onnxruntime.quantization.calibrate import TensorData, TensorsData, save_tensors_data

        floats = [*floats, *find_endless(prepared, ranges)]
        types = {"uint8": quantization.QuantType.QUInt8, "int8": quantization.QuantType.QInt8}
        layouts = {"qdq": quantization.QuantFormat.QDQ, "qoperator": quantization.QuantFormat.QOperator}
        ends = {
            name: [np.float32(end) for end in extremes] for name, extremes in ranges.items() if not is_endless(extremes)
        }
        tensor_ranges = {name: TensorData(lowest=low, highest=high) for name, (low, high) in ends.items()}
        with tempfile.TemporaryDirectory() as folder:
            cache, quantized = Path(folder) / "ranges.json", Path(folder) / "quantized.onnx"
            save_tensors_data(TensorsData(quantization.CalibrationMethod.MinMax, tensor_ranges), cache)
            quantization.quantize_static(
                prepared,
                quantized,
                None,
                quant_format=layouts[scheme.layout],
                per_channel=True,
                reduce_range=scheme.reduce_range,
                activation_type=types[scheme.activations],
                weight_type=types[scheme.weights],
                nodes_to_exclude=[*floats, *_find_grouped_transposed(prepared)],
                extra_options={"OpTypesToExcludeOutputQuantization": [] if floats else FLOAT_RESULTS},
                calibration_cache_path=cache,
            )
            return fit_onnx_biases(quantized.read_bytes(), prepared)
