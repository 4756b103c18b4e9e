"""Files of estimated profiles: one kind of board each, with what is known of it, the sources and the errors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from edgeprune.core.calibrate import Calibration
from edgeprune.core.estimate import PARAMETERS, VALUE_BYTES, Core, EstimatedProfile, Parameter
from edgeprune.core.latency import ESTIMATED
from edgeprune.errors import ProfileError

PROFILE_VERSION = 1
FACTS = tuple(one.name for one in fields(Core) if one.name != "name")
"""What is documented of a core."""


@dataclass(frozen=True)
class BoardProfiles:
    """Estimated profiles of one board, one for each runtime and precision, and where they come from.

    `sources` are publications of measurements; `facts` says of each fact of the core where it is written.
    """

    board: str
    description: str
    sources: tuple[str, ...]
    facts: Mapping[str, str]
    profiles: tuple[EstimatedProfile, ...] = field(default=())

    def choose(self, runtime: str, precision: str, threads: int) -> EstimatedProfile:
        """The profile of a runtime and precision, for so many threads.

        Raises:
            ProfileError: none of that runtime and precision; or fewer cores than threads.
        """
        for profile in self.profiles:
            if (profile.runtime, profile.precision) == (runtime, precision):
                if not 1 <= threads <= profile.core.cores:
                    raise ProfileError(
                        f"estimated profile of {self.board}: {threads} threads; it has {profile.core.cores} such cores"
                    )
                return replace(profile, threads=threads)
        known = ", ".join(f"{one.runtime} {one.precision}" for one in self.profiles)
        raise ProfileError(f"estimated profile of {self.board}: none for {runtime} {precision}; there are {known}")


def put_profile(board: BoardProfiles, calibrated: Calibration) -> BoardProfiles:
    """The board with its profile of that runtime and precision replaced by a calibrated one, with its errors."""
    found = calibrated.profile
    worth = {"before": _round_all(asdict(calibrated.before)), "after_left_out": _round_all(asdict(calibrated.after))}
    profile = replace(found, board=board.board, conditions={**found.conditions, "calibration": worth})
    kept = tuple(one for one in board.profiles if (one.runtime, one.precision) != (profile.runtime, profile.precision))
    return replace(board, profiles=(*kept, profile))


def _round_all(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: _round(figure) for name, figure in figures.items()}


def render_profiles(board: BoardProfiles) -> str:
    """JSON with one figure a line."""
    document = {
        "version": PROFILE_VERSION,
        "origin": ESTIMATED,
        "board": board.board,
        "description": board.description,
        "sources": list(board.sources),
        "facts": {name: board.facts[name] for name in FACTS},
        "profiles": [_render(profile) for profile in board.profiles],
    }
    return json.dumps(document, indent=1) + "\n"


def _render(profile: EstimatedProfile) -> dict[str, Any]:
    return {
        "runtime": profile.runtime,
        "precision": profile.precision,
        "core": asdict(profile.core),
        "parameters": {name: _round(profile.parameters[name].value) for name in PARAMETERS},
        "spreads": {name: _round(profile.parameters[name].spread) for name in PARAMETERS},
        "layer_spread": _round(profile.layer_spread),
        "net_spread": _round(profile.net_spread),
        "conditions": dict(profile.conditions),
    }


def _round(figure: float) -> float:
    return float(f"{figure:.6g}")


def parse_profiles(text: str, where: str) -> BoardProfiles:
    """Read what :func:`render_profiles` wrote; the profiles are for one thread until chosen for more.

    Raises:
        ProfileError: not such a document, or one of another origin.
    """
    try:
        document = json.loads(text)
        if document["version"] != PROFILE_VERSION:
            raise ProfileError(
                f"{where}: version {document['version']}; this edgeprune reads version {PROFILE_VERSION}"
            )
        if document["origin"] != ESTIMATED:
            raise ProfileError(f"{where}: origin {document['origin']!r}; expected {ESTIMATED!r}")
        name = document["board"]
        profiles = tuple(_parse(row, name, where) for row in document["profiles"])
        facts = document["facts"]
        unsourced = [fact for fact in FACTS if not str(facts.get(fact, "")).strip()]
        if unsourced:
            raise ProfileError(f"{where}: facts: no source for {', '.join(unsourced)}; every fact of the core has one")
        return BoardProfiles(name, document["description"], tuple(document["sources"]), facts, profiles)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ProfileError(f"{where}: not a file of estimated profiles: {type(exc).__name__}: {exc}") from exc


def _parse(row: Mapping[str, Any], board: str, where: str) -> EstimatedProfile:
    _check_names(row["parameters"], where)
    _check_names(row["spreads"], where)
    parameters = {name: Parameter(float(row["parameters"][name]), float(row["spreads"][name])) for name in PARAMETERS}
    core = Core(**row["core"])
    if row["precision"] not in VALUE_BYTES:
        raise ProfileError(f"{where}: precision {row['precision']!r}; known are {', '.join(VALUE_BYTES)}")
    facts = {name: value for name, value in asdict(core).items() if name != "name"}
    figures = [one.value for one in parameters.values()] + [float(value) for value in facts.values()]
    spreads = [one.spread for one in parameters.values()] + [row["layer_spread"], row["net_spread"]]
    if not all(0 < value < float("inf") for value in figures) or not all(0 <= value < 10 for value in spreads):
        raise ProfileError(f"{where}: a figure is not positive and finite, or a spread not between 0 and 10")
    return EstimatedProfile(
        board,
        row["runtime"],
        row["precision"],
        1,
        core,
        parameters,
        row["layer_spread"],
        row["net_spread"],
        row["conditions"],
    )


def _check_names(found: Iterable[str], where: str) -> None:
    names: Sequence[str] = list(found)
    wrong = sorted(set(PARAMETERS) ^ set(names))
    if wrong:
        raise ProfileError(f"{where}: parameters missing or unknown: {', '.join(wrong)}")
