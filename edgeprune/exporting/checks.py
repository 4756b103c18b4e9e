"""What an exporter requires of a program, of its example input and of calibration data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgeprune.core.quantizing.soundness import is_sound
from edgeprune.errors import ExportError
from edgeprune.exporting.runners import channels_last

Batch = np.ndarray | Tensor


def check_program(program: nn.Module, example: Tensor) -> None:
    """Require finite weights (masks may hold infinity), and a finite output with a batch of 1 for `example`.

    Raises:
        ExportError: the program, the example or the output is not fit for export.
    """
    if example.ndim < 2 or example.shape[0] != 1:
        raise ExportError(f"example input: shape {list(example.shape)}; expected a batch of one, [1, ...]")
    broken = [
        name
        for name, value in (*program.named_parameters(), *program.named_buffers())
        if not is_sound(name, isinstance(value, nn.Parameter), bool(value.isnan().any()), bool(value.isinf().any()))
    ]
    if broken:
        shown = ", ".join(broken[:3]) + (f" and {len(broken) - 3} more" if len(broken) > 3 else "")
        raise ExportError(f"model: NaN or infinity in {shown}; train it again with a lower learning rate")
    if not np.isfinite(run_torch(program, example.detach())).all():
        raise ExportError("model: NaN or infinity in the output for the example input; check the weights")


def check_image(example: Tensor, path: Path) -> None:
    """Require an input `[1, C, H, W]` whose layout can be told from its shape.

    Raises:
        ExportError: it is none.
    """
    if example.ndim != 4 or example.shape[1:] == channels_last(example.shape)[1:]:
        raise ExportError(
            f"{path}: input of shape {list(example.shape)} has no channels that can be told from its height and width; "
            'leave input_layout = "nchw"'
        )


def run_torch(program: nn.Module, inputs: Batch) -> np.ndarray:
    """Outputs `[N, ...]` of a program for `inputs` `[N, ...]`, one row at a time as the exported files run.

    Raises:
        ExportError: there are no inputs, the program raises, or it does not give exactly one tensor `[1, ...]`.
    """
    if len(inputs) == 0:
        raise ExportError("model: no inputs to run; give at least one row")
    rows = torch.as_tensor(inputs)
    with torch.no_grad():
        return np.concatenate([_run_row(program, row[None]) for row in rows])


def gather_calibration(batches: Iterable[Batch], shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    """All calibration rows as one array `[N, *shape[1:]]`; `shape` is the model's input, batch of 1 included.

    Raises:
        ExportError: there are no rows, or a batch is no array, has another shape, or is not finite.
    """
    rows = [_check_batch(batch, index, shape) for index, batch in enumerate(batches)]
    if not sum(map(len, rows)):
        raise ExportError("calibration data: empty; int8 needs some typical inputs, 100 or more are usual")
    return np.concatenate(rows).astype(dtype, copy=False)


def _check_batch(batch: Batch, index: int, shape: tuple[int, ...]) -> np.ndarray:
    where = f"calibration data: batch {index}"
    if not isinstance(batch, np.ndarray | Tensor):
        raise ExportError(f"{where}: is a {type(batch).__name__}; expected an array or tensor of inputs alone")
    rows = batch.numpy(force=True) if isinstance(batch, Tensor) else batch
    if rows.ndim != len(shape) or rows.shape[1:] != shape[1:]:
        raise ExportError(f"{where}: shape {list(rows.shape)}; the model takes {['N', *shape[1:]]}")
    if not np.isfinite(rows).all():
        raise ExportError(f"{where}: NaN or infinity; clean the data that the recipe gives")
    return rows


def _run_row(program: nn.Module, row: Tensor) -> np.ndarray:
    try:
        output = program(row)
    except Exception as exc:
        raise ExportError(f"model: fails on an input of shape {list(row.shape)}: {exc}") from exc
    if not isinstance(output, Tensor):
        raise ExportError(f"model: gives a {type(output).__name__}; exactly one output tensor can be exported")
    if output.ndim == 0 or output.shape[0] != 1:
        raise ExportError(f"model: output of shape {list(output.shape)} for a batch of one; expected [1, ...]")
    return output.numpy(force=True)
