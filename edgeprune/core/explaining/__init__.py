"""Why a net was cut as it was, and what that bought: values and pure functions.

Imports planning, measuring and the latency model; the stages and the command `explain` come in.
"""
