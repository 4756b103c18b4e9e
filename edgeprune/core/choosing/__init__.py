"""Choosing among measured runs: the front of quality against latency, the area under it, the card of a run.

Rests on core.releasing.
"""
