"""A phone without Python: TFLite's native benchmark, and what the phone says of its state.

Stages come in through device.boards alone.
"""
