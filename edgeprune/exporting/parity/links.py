"""The links of the parity chain, each with the function that looks into it layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from torch.fx import GraphModule

from edgeprune.exporting.formats import find_format
from edgeprune.exporting.parity.bisect import LIMIT_DB, Bisection, bisect_artifacts, bisect_kernels
from edgeprune.exporting.parity.bisect_program import bisect_program
from edgeprune.exporting.parity.chain import INTEGER_KERNELS
from edgeprune.exporting.parity.tolerances import TOLERANCES

Key = tuple[str, str, str]
"""Role, format and precision of a file."""
Bisector = Callable[[np.ndarray], Bisection]


def find_bisectors(
    key: Key, files: Mapping[Key, Path], load_program: Callable[[str], GraphModule]
) -> dict[str, Bisector]:
    """What finds the bad layer in each link that leads to a file, by the link's name in the chain.

    `load_program` gives the net that the files of a role were made from.
    """
    role, file_format, precision = key
    reference, path = files.get((role, file_format, "fp32")), files[key]
    if precision == "fp32":
        return {f"{role}: torch -> {file_format} fp32": lambda inputs: bisect_program(load_program(role), path, inputs)}
    bisectors: dict[str, Bisector] = {}
    if reference is not None:
        limit_db = TOLERANCES[precision].sqnr_db or LIMIT_DB
        name = f"{role}: {file_format} fp32 -> {file_format} {precision}"
        bisectors[name] = partial(bisect_artifacts, reference, path, limit_db=limit_db)
    if precision in INTEGER_KERNELS:
        limit_db = find_format(file_format).kernels.sqnr_db or LIMIT_DB
        name = f"{role}: {file_format} {precision} reference kernels -> optimised kernels"
        bisectors[name] = partial(bisect_kernels, path, limit_db=limit_db)
    return bisectors
