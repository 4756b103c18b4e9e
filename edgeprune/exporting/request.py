"""What is asked of an export, and what exporters are given and say."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from edgeprune.core.formats import AUTO
from edgeprune.exporting.checks import Batch
from edgeprune.exporting.quantizing.mixed import Wishes


@dataclass(frozen=True)
class Form:
    """What a file takes and gives.

    `nhwc`: images have their channels last, as cameras give them, instead of the program's [N, C, H, W].
    `integers`: static int8 files take and give int8 (and int16x8 files int16), as microcontrollers need it, by the
    scale and zero point that the file states; instead of float32.
    """

    nhwc: bool = False
    integers: bool = False


FLOAT_NCHW = Form()


@dataclass(frozen=True)
class Processor:
    """What files are made for: `machine` is from `uname -m`, `flags` are those of its /proc/cpuinfo."""

    machine: str = "unknown"
    flags: Collection[str] = ()


@dataclass(frozen=True)
class ExportRequest:
    """What to export: files `artifacts/{role}.{precision}.{format}` within the run `directory`.

    Each format is made in those of `precisions` that it has. `calibration` (batches of inputs `[N, ...]`) is read once,
    and only where a precision needs it. `int8_scheme` is the name of one, or AUTO: what suits the `processor`; the
    default is right on every one. `origin` (such as hashes of the model and the plan) is written into each file, beside
    what :func:`describe_origin` adds. `tuned`: static quantization is chosen by measured error
    (:func:`edgeprune.exporting.quantizing.static.tune`), some seconds for a small net; else it is plain min-max, which
    is as fast when it runs. `form` is what files take and give, `wishes` what is asked of a file of mixed precision.
    `has_float`: the fp32 files of this program are there, as an earlier request made them.
    """

    directory: Path
    role: str
    formats: tuple[str, ...]
    precisions: tuple[str, ...]
    calibration: Iterable[Batch] = ()
    int8_scheme: str = AUTO
    processor: Processor = Processor()
    origin: Mapping[str, str] = field(default_factory=dict)
    tuned: bool = False
    form: Form = FLOAT_NCHW
    wishes: Wishes = Wishes()
    has_float: bool = False


@dataclass(frozen=True)
class Source:
    """What an exporter works from: the program, its float file (made once for a format), calibration rows."""

    program: nn.Module
    example: Tensor
    float_file: Path
    rows: np.ndarray
    request: ExportRequest
