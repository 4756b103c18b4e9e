"""Values and pure functions: no torch, no onnx, no connection, no files but those that are handed in as text."""
