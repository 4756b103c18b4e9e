"""An ONNX graph made ready for onnx2torch: whatever hangs on sizes alone is computed now and written as literals.

Operators that take their shapes, bounds or amounts as tensors get them as attributes, in a domain of our own that
onnx2torch is taught to read; a bias that is added apart goes into its layer; the batch stays open.
"""
