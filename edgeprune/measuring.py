"""Measuring a ready file on a board, from Python; part of `import edgeprune as ep`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from edgeprune.core.formats import FORMATS, find_runtime
from edgeprune.core.measuring.measurement import Measurement
from edgeprune.core.releasing.release import shipped_path
from edgeprune.device.board import ModelFile, Session
from edgeprune.device.boards import measure_files
from edgeprune.errors import UsageError
from edgeprune.exporting.formats import format_of
from edgeprune.run import look_at_run, read_json
from edgeprune.shipped import load_target

NOTHING_OPEN: Mapping[str, tuple[int, ...]] = MappingProxyType({})


def measure(
    path: str | Path,
    target: str = "local",
    host: str | None = None,
    threads: int | None = None,
    shapes: Mapping[str, tuple[int, ...]] = NOTHING_OPEN,
) -> Measurement:
    """Latency of an ONNX or TFLite file, or of what a run ships, on a board of a target (or a target's `.toml`).

    `threads` are the target's if not said; `shapes` are those of inputs whose sizes are open, "" for an only input. The
    figure is `measurement.latency` (p50, p95, intervals, in ms), and nothing follows from it where
    `measurement.problems` are told.

    Raises:
        TargetError: no such target, or no address of its board is known.
        UsageError: no such file, or sizes of an input that are open and not given.
        DeviceError: the board cannot be reached or lacks the runtime, or somebody else uses it.
    """
    chosen = load_target(target)
    chosen = chosen if threads is None else replace(chosen, threads=threads)
    with tempfile.TemporaryDirectory() as folder:
        model = read_model(Path(path), Path(folder))
        _, measurements = measure_files(chosen, host, [model], Session(shapes=dict(shapes)), lambda text: None)
    return measurements[model.name]


def read_model(path: Path, folder: Path, say: Callable[[str], None] = lambda text: None) -> ModelFile:
    """A file with all its weights, or what a run ships, with the runtime of its format; `folder` holds a copy of it
    where weights lie beside it.

    Raises:
        UsageError: it is no such file, or its weights are missing.
    """
    if path.is_dir():
        run = look_at_run(path)
        path = run.file(shipped_path(read_json(run.file("report.json")), str(path)))
    runtime = find_runtime(path.suffix.removeprefix("."))
    if runtime is None:
        expected = " or ".join(f".{name}" for name in FORMATS)
        raise UsageError(f"{path}: expected an {expected} file, or a run directory")
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    whole = format_of(path).contain(path, folder)
    if whole != path:
        say(f"{path.name}: the weights that lie beside it are sent inside it")
    return ModelFile.of(whole, runtime)
