"""One-layer models, built in milliseconds: a runtime executes each as it executes that layer inside a network."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from edgeprune.core.latency.layers import (
    ACTIVATIONS,
    ATTENTION,
    JOIN,
    PROBED,
    TRANSPOSED,
    WEIGHTED,
    LayerShape,
    join_ends,
)
from edgeprune.errors import ExportError
from edgeprune.exporting.formats import find_format

PRECISIONS = ("fp32", "int8")
"""What single layers can be measured in."""
CONVERSIONS = {"fp32-int8": ("fp32", "int8"), "int8-fp32": ("int8", "fp32")}
"""What joins can be measured in besides: the first of the two layers in one precision, the second in another."""


def build_probe(shape: LayerShape, file_format: str, precision: str) -> bytes:
    """The file of a model that is this layer with a bias and a ReLU, for one input.

    A join is two thin convolutions with the joined tensor between them (:func:`join_ends`), which is converted there
    in a precision of CONVERSIONS. Each takes and gives tensors as its runtime holds them between layers: ONNX fp32
    float32 `[1, cin, *size]`, ONNX int8 uint8 `[1, *size, cin]` (of a transposed convolution, which it runs in float,
    `[1, cin, *size]`), TFLite float32 or int8 `[1, *size, cin]` with height 1
    for a 1-D layer; a linear layer takes `[1, cin]`, or for tokens `[tokens, cin]` in ONNX and `[1, tokens, cin]` in
    TFLite. Attention takes queries, keys and values, `[1, tokens, channels]` each, an activation `[1, values, cin]`.

    Raises:
        ExportError: no such format, precision or layer, or the library that the format needs is not installed.
    """
    layers = join_ends(shape) if shape.op == JOIN else (shape,)
    probe_format = find_format(file_format)
    for layer in layers:
        _check(layer, probe_format.probe_axes)
    precisions = {name: (name,) * len(layers) for name in PRECISIONS} | (CONVERSIONS if shape.op == JOIN else {})
    if precision not in precisions:
        raise ExportError(f"probe of {shape.describe()}: unknown precision '{precision}'; expected {_list(precisions)}")
    return probe_format.build_probe(
        [
            (layer, layer_precision == "int8")
            for layer, layer_precision in zip(layers, precisions[precision], strict=True)
        ]
    )


def write_probes(
    shapes: Collection[LayerShape], file_format: str, precision: str, directory: Path
) -> dict[LayerShape, Path]:
    """Write each shape's probe into the directory, which is made; file names depend on shape and precision only.

    Raises:
        ExportError: as :func:`build_probe`, or the directory cannot be written.
    """
    paths = {shape: directory / f"{_name(shape)}.{precision}.{file_format}" for shape in shapes}
    for shape, path in paths.items():
        content = build_probe(shape, file_format, precision)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as exc:
            raise ExportError(f"{path}: cannot write the probe of {shape.describe()}: {exc.strerror}") from exc
    return paths


Layers = Sequence[tuple[LayerShape, bool]]
"""Layers one behind the other, each with whether it is quantized."""


def _check(shape: LayerShape, space: tuple[int, ...]) -> None:
    axes_by_op = {"conv": space, TRANSPOSED: space, "linear": (0, 1), ATTENTION: (2,)}
    axes = (axes_by_op | dict.fromkeys(ACTIVATIONS, (1,))).get(shape.op)
    if axes is None:
        ops = _list((*WEIGHTED, *PROBED))
        raise ExportError(f"probe of {shape.describe()}: no probe for op '{shape.op}'; expected {ops}")
    lengths = {len(part) for part in (shape.kernel, shape.stride, shape.size, shape.padding, shape.steps)}
    if len(lengths) != 1 or lengths.isdisjoint(axes):
        expected = " or ".join(map(str, axes))
        raise ExportError(f"probe of {shape!r}: kernel, stride, size and padding need {expected} numbers each")
    counts = (shape.cin, shape.cout, shape.groups, *shape.kernel, *shape.stride, *shape.steps)
    if any(count < 1 for count in counts) or any(pad < 0 for pad in shape.padding):
        raise ExportError(f"probe of {shape!r}: channels, groups, kernel, stride and dilation begin at 1, padding at 0")
    if shape.cin % shape.groups or shape.cout % shape.groups:
        raise ExportError(f"probe of {shape.describe()}: groups must divide both channel counts")
    if any(size < 1 for size in shape.output_size):
        raise ExportError(f"probe of {shape.describe()}: the kernel is larger than the padded input")
    if shape.op != TRANSPOSED and any(after < 0 for _, after in shape.ends):
        raise ExportError(f"probe of {shape!r}: less comes out than its padding gives")


def _name(shape: LayerShape) -> str:
    parts = [shape.op, f"i{shape.cin}", f"o{shape.cout}", f"g{shape.groups}"]
    axes = {"k": shape.kernel, "s": shape.stride, "p": shape.padding, "n": shape.size}
    axes |= {"d": shape.dilation, "m": shape.output}
    return "_".join(parts + [letter + "x".join(map(str, numbers)) for letter, numbers in axes.items() if numbers])


def _list(names: Collection[str]) -> str:
    return " or ".join(names)
