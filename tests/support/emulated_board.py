"""A board in QEMU with its UART on a pseudo-terminal."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HAS_TOOLS = all(map(shutil.which, ("arm-none-eabi-gcc", "qemu-system-arm", "make")))
needs_tools = pytest.mark.skipif(not HAS_TOOLS, reason="no arm-none-eabi-gcc or qemu-system-arm; see test_packages.sh")


@contextmanager
def powered(image: Path, machine: str = "mps2-an386") -> Iterator[str]:
    """The board with a firmware, switched on; gives its port."""
    words = ["qemu-system-arm", "-M", machine, "-nographic", "-monitor", "none", "-serial", "pty"]
    with subprocess.Popen(
        [*words, "-kernel", image], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as qemu:
        try:
            told = qemu.stdout.readline() if qemu.stdout else ""
            port = re.search(r"/dev/pts/[0-9]+", told)
            assert port, told
            time.sleep(0.2)
            yield port[0]
        finally:
            qemu.kill()
