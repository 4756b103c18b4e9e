"""Other work on this machine, for tests of how it is noticed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

HOG = "import os; test = os.getppid()\nwhile os.getppid() == test: pass"
"""Keeps a core busy, and ends with the test, however that ends."""


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """So many processes that do nothing but compute, during the body."""
    loops = [subprocess.Popen([sys.executable, "-c", HOG]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
