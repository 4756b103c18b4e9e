"""Boards before they are used: the doctor, the venv with its runtime, wheels.

For `edgeprune devices`.
"""
