"""Projects for TensorFlow Lite Micro, written around int8 TFLite files."""
