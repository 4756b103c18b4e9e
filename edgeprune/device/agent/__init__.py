"""A board with Python: the agent that is pushed there, and what is asked of it.

Stages come in through device.boards alone.
"""
