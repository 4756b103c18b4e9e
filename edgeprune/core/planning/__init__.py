"""Which widths: groups, limits, the exact planner, the loop of plan and measurement, and mixed precision.

Rests on core.latency.
"""
