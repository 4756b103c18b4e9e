"""Half precision for ONNX: weights and arithmetic in float16, inputs and outputs in float32."""

from __future__ import annotations

from pathlib import Path

from edgeprune.exporting.files import write_file
from edgeprune.exporting.foreign import foreign


def halve_onnx(source: Path, target: Path) -> None:
    """Write the float ONNX file `source` in float16; inputs and outputs stay float32. Same input, same bytes.

    Where a runtime has no float16 kernel for an operator it computes that one in float32 (ONNX Runtime on x86 does so
    for all): such a file is half as large, but not faster there.

    Raises:
        ExportError: `source` is no such file, it cannot be converted, or the target cannot be written.
    """
    with foreign("float16 conversion", source):
        import onnx
        from onnxruntime.quantization.onnx_model import ONNXModel
        from onnxruntime.transformers.float16 import convert_float_to_float16

        model = convert_float_to_float16(onnx.load(source), keep_io_types=True)
        ONNXModel(model).topological_sort()  # the conversions of inputs were added last
        onnx.checker.check_model(model, full_check=True)
        content = model.SerializeToString(deterministic=True)
    write_file(target, content)
