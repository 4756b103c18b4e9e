"""What is known of each file format: one object for each, made by the format's own package.

A new format is a package beside `onnx/` and `tflite/` with a module `format` that has a `FORMAT`, and an entry in
`edgeprune.core.formats`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol

import numpy as np

from edgeprune.core.artifact import Signature
from edgeprune.core.formats import FORMATS
from edgeprune.errors import ExportError

if TYPE_CHECKING:
    from edgeprune.core.latency.breakdown import NodeTime
    from edgeprune.core.latency.layers import Layer, LayerShape
    from edgeprune.core.memory.fit import ArenaCount
    from edgeprune.core.memory.learn import FileMemory
    from edgeprune.exporting.parity.layer_outputs import Trace
    from edgeprune.exporting.parity.tolerances import Tolerance
    from edgeprune.exporting.probing.probes import Layers
    from edgeprune.exporting.quantizing.weights import Changes, Node, WeightLayer
    from edgeprune.exporting.request import Source

Signatures = tuple[Signature, ...]
Metadata = Mapping[str, str]
Values = Mapping[str, np.ndarray]
"""Name of a tensor to its value for one row, `[1, ...]`."""


@dataclass(frozen=True)
class FileNotes:
    """How a file holds numbers, in words; what it is predicted to take, where it was chosen by that; and the most that
    any layer of a mixed one reads and writes.
    """

    scheme: str
    predicted_ms: float | None = None
    activation_bytes: int | None = None


Exporter = Callable[["Source", Path], FileNotes]


class Run(Protocol):
    """Outputs `[N, ...]` of a file for inputs `[N, ...]` that fit it, row by row as files have a batch of 1.

    `optimised=False` runs slow reference kernels. What its runtime raises passes through.
    """

    def __call__(self, path: Path, inputs: np.ndarray, optimised: bool = True, threads: int = 1) -> np.ndarray:
        """Run it."""
        ...


def _refuse(path: Path, *_: object) -> NoReturn:
    raise ExportError(f"{path}: layers cannot be read from {path.suffix} files; give the net in another format")


def _count_nothing(path: Path) -> None:
    """No interpreter counts what files of the format need."""


@dataclass(frozen=True)
class Inside:
    """How to look into files of a format and change them: what static quantization and bisection need.

    `trace(path, inputs, optimised)` gives every layer's output, `run_rows(path, rows)` every float tensor for each row
    in turn; the next read layers, operators and names of outputs of a float file, and give its content with other
    weights. `read_shapes(path)` describes layers as latency models know them, `sort_nodes(path, nodes, layers)` says
    which layer each node belongs to that a runtime's profiler told. `read_memory(path)` gives the tensors that the file
    holds in memory, where an interpreter lays them out by fixed rules, and `count_memory(path)` what that interpreter
    itself counts, None where it is not here or does not run the file.
    """

    trace: Callable[[Path, np.ndarray, bool], Trace]
    run_rows: Callable[[Path, np.ndarray], Iterator[Values]]
    read_layers: Callable[[Path], tuple[WeightLayer, ...]]
    read_nodes: Callable[[Path], tuple[Node, ...]]
    read_outputs: Callable[[Path], tuple[str, ...]]
    change_weights: Callable[[Path, Changes], bytes]
    read_shapes: Callable[[Path], tuple[LayerShape, ...]] = _refuse
    sort_nodes: Callable[[Path, Sequence[NodeTime], Sequence[Layer]], Mapping[str, list[NodeTime]]] = _refuse
    read_memory: Callable[[Path], FileMemory] | None = None
    count_memory: Callable[[Path], ArenaCount | None] = _count_nothing


def take_whole(path: Path, folder: Path) -> Path:
    """A file that has no weights beside it."""
    return path


@dataclass(frozen=True)
class Format:
    """One file format. Its functions raise ExportError, or what its libraries raise: call them within `foreign`.

    `tools` are the packages that make its files, whose versions each file states. `load_exporters` gives what writes a
    file, by precision, and says how it holds numbers. `describe(path)` gives inputs and outputs; `embed(content,
    metadata)` and `read(content)` write and read what a file says of itself. `build_probe(layers)` gives the content of
    a model of one layer or two; its convolutions may have `probe_axes` axes. `kernels` are the limits between reference
    and optimised kernels of static int8, which may saturate on one processor and not on another if it `saturates`.
    `contain(path, folder)` gives the file with all of it inside.
    """

    name: str
    tools: tuple[str, ...]
    load_exporters: Callable[[], Mapping[str, Exporter]]
    run: Run
    describe: Callable[[Path], tuple[Signatures, Signatures]]
    embed: Callable[[bytes, Metadata], bytes]
    read: Callable[[bytes], dict[str, str]]
    build_probe: Callable[[Layers], bytes]
    probe_axes: tuple[int, ...]
    kernels: Tolerance
    saturates: bool = False
    inside: Inside | None = None
    contain: Callable[[Path, Path], Path] = take_whole

    @property
    def exporters(self) -> Mapping[str, Exporter]:
        """What writes a file of each precision; they need torch, which takes a second to import."""
        return self.load_exporters()


_loaded: dict[str, Format] = {}


def add_format(new_format: Format) -> None:
    """Make a format known that has no package here; `core.formats.FORMATS` has an entry of the same name."""
    _loaded[new_format.name] = new_format


def find_format(name: str) -> Format:
    """The format of that name.

    Raises:
        ExportError: there is none; lists the valid ones.
    """
    if name not in FORMATS:
        raise ExportError(f"unknown format {name!r}; expected {' or '.join(FORMATS)}")
    if name not in _loaded:
        add_format(importlib.import_module(f"edgeprune.exporting.{name}.format").FORMAT)
    return _loaded[name]


def format_of(path: Path) -> Format:
    """The format of a file, by its suffix.

    Raises:
        ExportError: it is none of the formats.
    """
    if path.suffix.removeprefix(".") not in FORMATS:
        valid = ", ".join(f".{name}" for name in FORMATS)
        raise ExportError(f"{path}: suffix {path.suffix!r} is none of {valid}")
    return find_format(path.suffix.removeprefix("."))


def look_inside(path: Path) -> Inside:
    """How to look into a file.

    Raises:
        ExportError: its format cannot be looked into, or it is none of the formats.
    """
    inside = format_of(path).inside
    if inside is None:
        raise ExportError(f"{path}: files of this format cannot be looked into")
    return inside
