"""File formats, and the runtimes that run them: what each has, known without any of their libraries.

A new format or runtime is an entry here. How files of a format are made and run on this machine says its package in
`edgeprune.exporting`; how a board loads them says the agent's module `runtime_NAME`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

MIXED = "mixed"
STATIC = ("int8", "int16x8")
"""Precisions whose activation ranges are fixed beforehand, for the whole file."""
AUTO = "auto"
"""In place of a precision or a runtime: what ships is the fastest file, measured on the device, within the limits."""
MOST_THREADS = 256


@dataclass(frozen=True)
class FileFormat:
    """A kind of model file. `name` is its suffix too, without the dot.

    `made_by` is the module without which no such file is made here; pip installs it with the extra `extra`.

    `precisions` are those that it can be made in: "int8" is static, "int16x8" has int16 activations, MIXED is int8 with
    some layers in float. `io_types` are what static int8 files may take and give. `int8_schemes` are ways to hold
    activations and weights, where it has several: "7bit" weights saturate nowhere, "qoperator" is integer operators in
    the file itself.
    """

    name: str
    title: str
    precisions: tuple[str, ...]
    made_by: str
    extra: str = ""
    io_types: tuple[str, ...] = ("float32",)
    int8_schemes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Package:
    """A Python package that is a runtime on a board; `module` is what is imported of it.

    `min_glibc` is by the manylinux tag of its wheels on PyPI. `installed_mib` is what its unpacked wheels take with
    what they need and what Python compiles of them. `pythons` are the oldest and the newest that it has wheels for;
    `needs_64_bits`: they are for such machines only. `companions` have to be installed with it.
    """

    name: str
    module: str
    min_glibc: tuple[int, int]
    installed_mib: int
    pythons: tuple[tuple[int, int], tuple[int, int]] = ((3, 8), (3, 99))
    needs_64_bits: bool = True
    companions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Runtime:
    """What runs files of one `format` on a board; several runtimes may run the same.

    `packages` are those that provide it, the preferred one first. `providers` are its ways to compute; "cpu" is the
    default of each. `tells_nodes`: its profiler tells what each node takes. `agent_module` is a Python file with the
    agent's `runtime_NAME`, for a runtime that the agent in `deploy/` does not know. `generator` is the module whose
    `generate_c` makes the code that runs a file on a microcontroller; such a runtime has no packages. `precisions`
    are those of its format that it takes, empty: all.
    """

    name: str
    format: str
    packages: tuple[Package, ...]
    providers: tuple[str, ...] = ("cpu",)
    tells_nodes: bool = False
    agent_module: str = ""
    generator: str = ""
    precisions: tuple[str, ...] = ()

    def takes(self, precision: str) -> bool:
        """Whether it runs files of its format in a precision."""
        return precision in (self.precisions or self.file_format.precisions)

    @property
    def baseline_precision(self) -> str:
        """Precision of the unpruned file that all is held against: fp32, or the first that it takes."""
        return "fp32" if self.takes("fp32") else self.precisions[0]

    @property
    def file_format(self) -> FileFormat:
        """The format of its files."""
        return FORMATS[self.format]

    @property
    def needs_python(self) -> bool:
        """Whether it comes as a Python package, for boards that have Python; one for microcontrollers does not."""
        return bool(self.packages)


FORMATS = {
    entry.name: entry
    for entry in (
        FileFormat(
            "onnx",
            "ONNX",
            ("fp32", "fp16", "int8", "dynamic-int8", MIXED),
            "onnxruntime",
            int8_schemes=("u8s8", "u8s8-7bit", "s8s8", "u8s8-qoperator", "u8s8-7bit-qoperator"),
        ),
        FileFormat(
            "tflite",
            "TFLite",
            ("fp32", "fp16", "int8", "dynamic-int8", "int16x8", MIXED),
            "litert_torch",
            "tflite",
            io_types=("float32", "integer"),
        ),
    )
}
"""File formats by name."""
RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime(
            "onnxruntime",
            "onnx",
            (Package("onnxruntime", "onnxruntime", (2, 28), 140),),
            ("cpu", "xnnpack", "cuda", "tensorrt"),
            tells_nodes=True,
        ),
        Runtime(
            "litert",
            "tflite",
            (
                Package("ai-edge-litert", "ai_edge_litert.interpreter", (2, 27), 120, ((3, 10), (3, 99))),
                Package(
                    "tflite-runtime",
                    "tflite_runtime.interpreter",
                    (2, 34),
                    70,
                    ((3, 8), (3, 11)),
                    needs_64_bits=False,
                    companions=("numpy<2",),
                ),
            ),
            ("cpu", "gpu", "nnapi"),
        ),
        Runtime("tflm", "tflite", ()),  # TensorFlow Lite Micro: counted (`edgeprune fit`), not timed
        Runtime("c", "tflite", (), generator="edgeprune.exporting.c.generate", precisions=("int8",)),
    )
}
"""Runtimes by name. Figures of packages are those of onnxruntime 1.31.1, ai-edge-litert 2.3.0 and tflite-runtime 2.14.0
(112, 97 and 53 MiB of wheels for aarch64). LiteRT on the CPU is its own delegate, XNNPACK; "gpu" and "nnapi" are the
delegates of TFLite's native benchmark_model, which Python's packages do not have."""


def list_precisions() -> tuple[str, ...]:
    """Precisions that any format has."""
    return _once(file_format.precisions for file_format in FORMATS.values())


def list_io_types() -> tuple[str, ...]:
    """What static int8 files of any format may take and give."""
    return _once(file_format.io_types for file_format in FORMATS.values())


def list_int8_schemes() -> tuple[str, ...]:
    """Ways to hold static int8 in any format."""
    return _once(file_format.int8_schemes for file_format in FORMATS.values())


def list_providers() -> tuple[str, ...]:
    """Execution providers of any runtime."""
    return _once(runtime.providers for runtime in RUNTIMES.values())


def list_packages() -> dict[str, Package]:
    """Packages of all runtimes by name."""
    return {package.name: package for runtime in RUNTIMES.values() for package in runtime.packages}


def list_board_runtimes() -> tuple[str, ...]:
    """Runtimes that a board with Python may have; AUTO chooses among them."""
    return tuple(name for name, runtime in RUNTIMES.items() if runtime.needs_python)


def find_runtime(file_format: str, names: Iterable[str] = RUNTIMES) -> str | None:
    """The first of some runtimes that runs files of a format; None where none of them does."""
    return next((name for name in names if RUNTIMES[name].format == file_format), None)


def _once(lists: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """The names in all of several lists, each once."""
    return tuple(dict.fromkeys(chain.from_iterable(lists)))
