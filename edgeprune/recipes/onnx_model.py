"""A PyTorch module from an ONNX file, so that a recipe's `model()` can return it.

The conversion is onnx2torch's. What it leaves to the run (shapes that are computed or that come as tensors) is made
constant beforehand by `onnx_literals`, and the module is compared with ONNX Runtime before it is given out.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeprune.errors import RecipeError
from edgeprune.extras import comes_with
from edgeprune.recipes.onnx_literals.lowering import Runner, lower
from edgeprune.recipes.onnx_literals.operators import register_converters

Array = NDArray[Any]
TOLERANCE, LEAST_SCALE = 1e-3, 1e-2
"""Largest difference from ONNX Runtime, relative to the largest output (float32 through some hundred layers), and what
counts as the largest where all are tiny: ONNX Runtime's sigmoid is exact to 1e-7, not relative to its own value."""
WEIGHTS_MISSING = "should be stored in"
"""What onnx says of weights that lie in another file, which is not there."""
SEED = 0


@dataclass(frozen=True)
class _Input:
    """The one input of a file: its name, element type, fixed batch (0 where it is open) and other sizes."""

    name: str
    dtype: Any
    batch: int
    sizes: tuple[int, ...]

    def example(self, batch: int) -> Array:
        """Normal noise, or zeros and ones for whole numbers, of shape `[batch, *sizes]`."""
        random = np.random.default_rng(SEED)
        if np.issubdtype(self.dtype, np.floating):
            return random.standard_normal((batch, *self.sizes)).astype(self.dtype)
        return random.integers(0, 2, (batch, *self.sizes)).astype(self.dtype)


def load_onnx(path: str | Path, sizes: Sequence[int] = ()) -> nn.Module:
    """The network of an ONNX file as a module in eval mode, for any batch size, with weights that can be trained.

    `sizes` are the input's without batch, `(3, 224, 224)`: needed where the file leaves them open. A batch that
    the file fixes is opened.

    Raises:
        RecipeError: not an ONNX network of one input, sizes missing or wrong, an operator that cannot be converted,
            or the module computes something else than ONNX Runtime.
        MissingExtra: onnx2torch is not installed.
    """
    try:
        return _load(path, tuple(sizes))
    except RecipeError as exc:
        raise RecipeError(f"{path}: {exc}") from exc


def _load(path: str | Path, sizes: tuple[int, ...]) -> nn.Module:
    convert = _converter()
    network = _read(path)
    net_input, run = _input(network, sizes), _runner(network)
    examples = [net_input.example(batch) for batch in ([net_input.batch] if net_input.batch else [2, 3])]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # onnx2torch says what may differ; it is compared
            module = convert(lower(network, run, {net_input.name: examples}, net_input.batch)).eval()
    except RecipeError:
        raise
    except Exception as exc:
        raise RecipeError(f"onnx2torch cannot convert it: {_first_line(exc)}") from exc
    _check_outputs(module, net_input, lambda inputs: run({net_input.name: inputs}, None))
    return module


def _read(path: str | Path) -> Any:
    import onnx

    try:
        network = onnx.load(path)
        onnx.checker.check_model(network)
    except OSError as exc:
        raise RecipeError(f"cannot be read: {exc.strerror or exc}") from exc
    except Exception as exc:
        text = _first_line(exc)
        fault = "cannot be read" if WEIGHTS_MISSING in text else "not a valid ONNX file"
        raise RecipeError(f"{fault}: {text}") from exc
    return network


def _input(network: Any, sizes: tuple[int, ...]) -> _Input:
    from onnx.helper import tensor_dtype_to_np_dtype

    constants = {constant.name for constant in network.graph.initializer}
    inputs = [tensor for tensor in network.graph.input if tensor.name not in constants]
    if len(inputs) != 1:
        raise RecipeError(f"has {len(inputs)} inputs; a recipe's model takes one tensor")
    tensor = inputs[0].type.tensor_type
    declared = [max(0, dim.dim_value) for dim in tensor.shape.dim]
    if not declared:
        raise RecipeError(f"input {inputs[0].name!r} has no shape with a batch dimension")
    inner = sizes or tuple(declared[1:])
    fits = len(inner) == len(declared) - 1 and all(
        has in (0, size) for has, size in zip(declared[1:], inner, strict=False)
    )
    if not fits or 0 in inner:
        shape = ", ".join(str(size or "open") for size in declared)
        raise RecipeError(f"input {inputs[0].name!r} is [{shape}]; give load_onnx the sizes after the batch")
    return _Input(inputs[0].name, tensor_dtype_to_np_dtype(tensor.elem_type), declared[0], inner)


def _runner(network: Any) -> Runner:
    """Runs the file, or what it gives at other names than its outputs, in ONNX Runtime without optimizations."""
    import onnxruntime as ort
    from onnx import ValueInfoProto

    def run(inputs: dict[str, Array], names: Sequence[str] | None) -> list[Array]:
        widened = type(network)()
        widened.CopyFrom(network)
        widened.graph.output.extend(ValueInfoProto(name=name) for name in names or ())
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        try:
            session = ort.InferenceSession(widened.SerializeToString(), options, providers=["CPUExecutionProvider"])
            return [np.asarray(value) for value in session.run(names, inputs)]
        except Exception as exc:
            shape = list(next(iter(inputs.values())).shape)
            raise RecipeError(f"ONNX Runtime cannot run it at {shape}: {_first_line(exc)}") from exc

    return run


def _check_outputs(module: nn.Module, net_input: _Input, run: Callable[[Array], list[Array]]) -> None:
    """Compare the module on one batch with ONNX Runtime on its halves, which a wrong batch dimension does not survive.

    Raises:
        RecipeError: it fails, or gives something else.
    """
    half = net_input.batch or 1
    inputs = net_input.example(2 * half)
    halves = zip(run(inputs[:half]), run(inputs[half:]), strict=True)
    references = [torch.from_numpy(np.concatenate(pair)) for pair in halves]
    try:
        with torch.no_grad():
            outputs = module(torch.from_numpy(inputs))
    except Exception as exc:
        raise RecipeError(f"converted, it fails on a batch of {2 * half}: {_first_line(exc)}") from exc
    answers = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    if [tensor.shape for tensor in answers] != [tensor.shape for tensor in references]:
        raise RecipeError(
            f"converted, a batch of {2 * half} gives {[list(tensor.shape) for tensor in answers]}; "
            f"expected {[list(tensor.shape) for tensor in references]}: is the batch its first dimension throughout?"
        )
    for answer, reference in zip(answers, references, strict=True):
        error, scale = float((answer - reference).abs().max()), float(reference.abs().max())
        if not error <= TOLERANCE * max(scale, LEAST_SCALE):
            raise RecipeError(
                f"converted, it differs from ONNX Runtime by {error:.3g} (largest output {scale:.3g}); "
                "some operator is converted wrongly, so that it cannot be used"
            )


def _converter() -> Callable[[Any], nn.Module]:
    with comes_with("onnx-input"), _torchvision_aside():
        from onnx2torch import convert

    register_converters()
    return convert  # type: ignore[no-any-return]


@contextmanager
def _torchvision_aside() -> Iterator[None]:
    """Let onnx2torch be imported without torchvision, of which it needs two detection operators (refused below)."""
    operators = ModuleType("torchvision.ops")
    operators.roi_align = None  # type: ignore[attr-defined]
    absent = {"torchvision": ModuleType("torchvision"), "torchvision.ops": operators}
    absent = {name: module for name, module in absent.items() if name not in sys.modules}
    sys.modules.update(absent)
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def _first_line(exc: Exception) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0]
