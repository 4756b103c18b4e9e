"""From a torch program to files that run on a device: ONNX, TFLite, int8, and the proof that they agree."""
