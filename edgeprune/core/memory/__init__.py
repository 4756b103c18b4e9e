"""Memory of a microcontroller: where activations lie in an interpreter's arena, and what fits.

Knows neither files nor frameworks.
"""
