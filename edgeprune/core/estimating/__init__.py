"""Profiles of boards that are not at hand: a physical model of layers, its priors, its calibration.

Rests on core.latency.
"""
