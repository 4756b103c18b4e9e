"""Arithmetic of 8 bits: ranges, rounding, noise, and tensors that may hold infinity.

Arrays in, arrays out.
"""
