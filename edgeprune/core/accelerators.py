"""Names of where nets may be trained."""

from __future__ import annotations

AUTO, CPU = "auto", "cpu"
KINDS = ("cuda", "mps")
"""Accelerators in the order in which they are looked for."""
ACCELERATORS = (AUTO, CPU, *KINDS)
