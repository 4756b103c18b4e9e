"""ONNX files: made, quantized, run and read. Nothing outside this folder imports onnx, onnxscript or onnxruntime."""
