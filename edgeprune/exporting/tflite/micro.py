"""What TensorFlow Lite Micro itself counts for a file: by 32-bit pointers where node is there, else by 64-bit ones.

Both run in a process of their own: a file that an interpreter does not take ends it.
"""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from edgeprune.core.memory.fit import COUNTED_32, COUNTED_64, PLANNED, ArenaCount
from edgeprune.core.memory.timeline import Timeline
from edgeprune.errors import ExportError, MissingExtra
from edgeprune.exporting.tflite.timeline import read_timeline
from edgeprune.extras import comes_with

COUNT_S = 120.0
EXTRA = "mcu"
WASM_ARENA_BYTES = 3_000_000
"""What the build in mcufit has for an arena ("Configured arena size" in its output)."""
LEAST_ARENA_BYTES = 1 << 20
COUNT = """
import sys
from tflite_micro import runtime
runtime.Interpreter.from_file(sys.argv[1], arena_size=int(sys.argv[2])).print_allocations()
"""
SHARES_OF_ARENA = ("NonPersistent", "Persistent")
COMPLAINT = re.compile(
    r"\.cc\b|not supported|was not true|failed to prepare|Didn't find op|rror|Assertion failed|too small"
)
"""Lines in which an interpreter says what it has against a file."""
SHARES_32 = {
    "TfLiteEvalTensor data": 12 / 24,
    "NodeAndRegistration struct": 32 / 64,
    "Persistent TfLiteTensor data": 40 / 64,
    "Persistent TfLiteTensor quantization data": 40 / 64,
}
"""What each kind of entry takes with 32-bit pointers, of what it takes with 64-bit ones: bytes an entry as both builds
print them (tflite-micro 0.dev20261023182759, mcufit 0.5.2). Kernels' own data stay as they are: few are pointers."""


def count_file(path: Path) -> ArenaCount | None:
    """The arena of a file by the interpreter itself; None where it is not here or does not run the file."""
    try:
        count, _ = count_arena(path, read_timeline(path.read_bytes(), str(path)))
    except (ExportError, MissingExtra):
        return None
    return None if count.persistent_bytes is None else count


def count_arena(path: Path, timeline: Timeline) -> tuple[ArenaCount, tuple[str, ...]]:
    """The arena of a file, by the best counter that is here, and why better ones were not taken.

    Raises:
        ExportError: TensorFlow Lite Micro does not run the file; says its reason.
    """
    notes = list[str]()
    for count in (count_32_bit, count_64_bit):
        try:
            return count(path, timeline), tuple(notes)
        except MissingExtra as exc:
            notes.append(str(exc))
    return ArenaCount(timeline.arena.peak_bytes, None, PLANNED, "edgeprune"), tuple(notes)


def count_32_bit(path: Path, timeline: Timeline) -> ArenaCount:
    """The arena with pointers of 32 bits, as microcontrollers have them: TFLM as WebAssembly (mcufit), run by node.

    Raises:
        MissingExtra: mcufit or node is missing, or the net is larger than the build's arena.
        ExportError: TensorFlow Lite Micro does not run the file.
    """
    node = shutil.which("node")
    if node is None:
        raise MissingExtra("no program `node` on the PATH, so no 32-bit count; install Node.js")
    with comes_with(EXTRA):
        import mcufit.wasm as build  # type: ignore[import-not-found,import-untyped,unused-ignore]
    if timeline.arena.peak_bytes > WASM_ARENA_BYTES // 2:
        raise MissingExtra(f"more activations than the 32-bit build holds ({WASM_ARENA_BYTES:,} bytes of arena)")
    program = Path(build.__path__[0]) / "run_benchmark.mjs"
    text = _run([node, str(program), str(path.absolute())], path)
    table = text.rpartition("[[ Table ]]: Arena")[2]
    activations, persistent = (re.search(rf"^ *{name} \| *(\d+)", table, re.MULTILINE) for name in SHARES_OF_ARENA)
    if activations is None or persistent is None:
        raise _refuse(path, text)
    return ArenaCount(int(activations[1]), int(persistent[1]), COUNTED_32, f"mcufit {version('mcufit')}")


def count_64_bit(path: Path, timeline: Timeline) -> ArenaCount:
    """The arena as TFLM counts it with the pointers of this machine, those entries made smaller that are known to be so
    with pointers of 32 bits: still an upper bound.

    Raises:
        MissingExtra: tflite-micro is not installed.
        ExportError: TensorFlow Lite Micro does not run the file.
    """
    with comes_with(EXTRA):
        import tflite_micro  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: F401
    arena_bytes = LEAST_ARENA_BYTES + 2 * timeline.arena.peak_bytes + path.stat().st_size
    text = _run([sys.executable, "-c", COUNT, str(path.absolute()), str(arena_bytes)], path)
    head, tail = (re.search(rf"allocation {name} (\d+) bytes", text) for name in ("head", "tail"))
    if head is None or tail is None:
        raise _refuse(path, text)
    saved = sum(
        int(used) - math.ceil(int(used) * SHARES_32.get(name, 1))
        for name, used in re.findall(r"'([^']+)' used (\d+) bytes", text)
    )
    counter = f"tflite-micro {version('tflite-micro')}"
    return ArenaCount(int(head[1]), int(tail[1]) - saved, COUNTED_64, counter)


def _run(command: Sequence[str], path: Path) -> str:
    """What an interpreter prints of a file, on either stream."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=COUNT_S, check=False)
    except subprocess.TimeoutExpired as exc:
        raise ExportError(f"{path}: TensorFlow Lite Micro did not end within {COUNT_S:.0f} s") from exc
    return done.stdout + done.stderr


def _refuse(path: Path, text: str) -> ExportError:
    """What the interpreter says against a file, of all that it printed."""
    reasons = [line.strip() for line in text.splitlines() if COMPLAINT.search(line)]
    reason = "; ".join(reasons) or "it ended without a reason"
    return ExportError(f"{path}: TensorFlow Lite Micro does not run it: {reason}")
