"""Whether files compute what the model computes, and if not, where and why.

Knows formats by their objects alone.
"""
