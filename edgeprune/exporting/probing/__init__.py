"""Models of one layer or two, which a runtime executes as it does those layers inside a net.

Knows formats by their objects alone.
"""
