"""The links of a whole chain of files, for tests that look at all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn

from edgeprune.core.artifact import Artifact
from edgeprune.errors import EdgepruneError
from edgeprune.exporting.parity.chain import Parity, compare_each


def compare_artifacts(
    program: nn.Module, artifacts: Sequence[Artifact], directory: Path, inputs: np.ndarray, same_processor: bool = True
) -> tuple[Parity, ...]:
    """The links of `compare_each`; the first error is raised."""
    links: list[Parity] = []
    for _, outcome in compare_each(program, artifacts, directory, inputs, same_processor):
        if isinstance(outcome, EdgepruneError):
            raise outcome
        links += outcome
    return tuple(links)
