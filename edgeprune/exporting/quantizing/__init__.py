"""Static int8 and mixed precision of float files, whatever their format.

Knows formats by their objects alone.
"""
