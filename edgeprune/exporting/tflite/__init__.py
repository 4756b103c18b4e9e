"""TFLite files: made, quantized, run and read. Nothing outside this folder imports LiteRT or its converters."""
