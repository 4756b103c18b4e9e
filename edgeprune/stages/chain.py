"""The chain from the net to each of its files, held to its tolerances: what is broken never ships."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch.fx import GraphModule

from edgeprune.core.artifact import Artifact, name_artifact
from edgeprune.errors import EdgepruneError, ExportError, ParityError
from edgeprune.exporting.parity.chain import Judge, Parity, check_parity, compare_each
from edgeprune.exporting.parity.links import Bisector, find_bisectors

BISECT_ROWS = 8


@dataclass(frozen=True)
class Nets:
    """The nets by role, the run directory with their files, inputs `[N, ...]`; whether the files run on this machine.

    What is broken among the files named in `needed` stops everything. `judge` knows the targets of the inputs.
    """

    programs: Mapping[str, GraphModule]
    directory: Path
    inputs: np.ndarray
    same_processor: bool
    needed: Collection[str]
    judge: Judge | None = None


@dataclass
class Checked:
    """Links in order, and why files were refused, by their name."""

    links: list[Parity] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    def add_(self, link: Parity) -> None:
        """Add a link, unless it is there already: files of two precisions are made from the same fp32 file."""
        if all(earlier.link != link.link for earlier in self.links):
            self.links.append(link)


def check_artifacts_(checked: Checked, nets: Nets, artifacts: Sequence[Artifact]) -> None:
    """Add the links of files of one role to what was checked: a file with a broken link is refused, its layer named.

    Raises:
        EdgepruneError: a file that is needed is broken, or does not run.
    """
    files = {artifact.name: artifact for artifact in artifacts}
    for artifact, outcome in compare_each(
        nets.programs[artifacts[0].role], artifacts, nets.directory, nets.inputs, nets.same_processor, nets.judge
    ):
        try:
            if isinstance(outcome, EdgepruneError):
                raise outcome
            for link in outcome:
                checked.add_(link)
                check_link(link, artifacts, nets.directory, nets.inputs, nets.programs)
            if (source := name_artifact(artifact.role, artifact.format, "fp32")) in checked.refused and source in files:
                raise ParityError(f"made from {source}, which is refused")
        except EdgepruneError as exc:
            if artifact.name in nets.needed:
                raise
            checked.refused[artifact.name] = str(exc)


def check_link(
    link: Parity,
    artifacts: Sequence[Artifact],
    directory: Path,
    inputs: np.ndarray,
    programs: Mapping[str, GraphModule],
) -> None:
    """Require a link to be within its tolerance; of a broken one, name the layer. `programs` are the nets by role.

    Raises:
        ParityError: it is not.
    """
    try:
        check_parity(link)
    except ParityError as exc:
        files = {
            (artifact.role, artifact.format, artifact.precision): directory / artifact.path for artifact in artifacts
        }
        for key in files:
            bisector = find_bisectors(key, files, programs.__getitem__).get(link.link)
            if bisector is not None:
                raise ParityError(f"{exc}; {_name_layer(bisector, inputs[:BISECT_ROWS])}") from exc
        raise


def _name_layer(bisector: Bisector, inputs: np.ndarray) -> str:
    try:
        return bisector(inputs).describe()
    except ExportError as exc:
        return f"no layer can be named: {exc}"


def parity_row(link: Parity) -> dict[str, Any]:
    """A link as the report has it."""
    row = asdict(link)
    row["tolerance"] = link.tolerance.describe()
    return row
