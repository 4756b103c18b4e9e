"""Files of estimated profiles: one kind of board each, with what is known of it, the sources and the errors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from edgeprune.core.answers import describe_misfit
from edgeprune.core.estimating.calibrate import Calibration
from edgeprune.core.estimating.estimate import VALUE_BYTES, Core, EstimatedProfile, Parameter
from edgeprune.core.estimating.prior import PARAMETERS
from edgeprune.core.latency.table import ESTIMATED
from edgeprune.errors import ProfileError

PROFILE_VERSION = 2
FACTS = tuple(fact.name for fact in fields(Core) if fact.name != "name")
"""What is documented of a core."""
KNOWN = ", ".join(VALUE_BYTES)
SPREADS = ("layer_spread", "net_spread", "stretch")


@dataclass(frozen=True)
class BoardProfiles:
    """Estimated profiles of one board, one for each runtime, and where they come from.

    `sources` are publications of measurements; `facts` says of each fact of the core where it is written.
    """

    board: str
    description: str
    sources: tuple[str, ...]
    facts: Mapping[str, str]
    profiles: tuple[EstimatedProfile, ...] = field(default=())
    baseline_precision: str = field(default="fp32", init=False)
    """What the unpruned net is estimated in."""

    def choose(self, runtime: str, precision: str, threads: int) -> EstimatedProfile:
        """The profile of a runtime, asked at a precision and for so many threads.

        Raises:
            ProfileError: none of that runtime, no peak at that precision, or fewer cores than threads.
        """
        for profile in self.profiles:
            if profile.runtime == runtime and precision in profile.core.macs_per_cycle:
                if not 1 <= threads <= profile.core.cores:
                    raise ProfileError(
                        f"estimated profile of {self.board}: {threads} threads; it has {profile.core.cores} such cores"
                    )
                return replace(profile, precision=precision, threads=threads)
        offers = ", ".join(
            f"{profile.runtime} {name}" for profile in self.profiles for name in profile.core.macs_per_cycle
        )
        raise ProfileError(f"estimated profile of {self.board}: none for {runtime} {precision}; there are {offers}")


def put_profile(board: BoardProfiles, calibrated: Calibration) -> BoardProfiles:
    """The board with its profile of that runtime replaced by a calibrated one, with its errors."""
    fitted = calibrated.profile
    worth = {"before": _round_all(asdict(calibrated.before)), "after_left_out": _round_all(asdict(calibrated.after))}
    profile = replace(fitted, board=board.board, conditions={**fitted.conditions, "calibration": worth})
    others = tuple(other for other in board.profiles if other.runtime != profile.runtime)
    return replace(board, profiles=(*others, profile))


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
        "winograd": profile.winograd,
        "weights_only": profile.weights_only,
        "core": asdict(profile.core),
        "parameters": {name: _round(profile.parameters[name].value) for name in PARAMETERS},
        "spreads": {name: _round(profile.parameters[name].spread) for name in PARAMETERS},
        **{name: _round(getattr(profile, name)) for name in SPREADS},
        "conditions": dict(profile.conditions),
    }


def _round(figure: float) -> float:
    return float(f"{figure:.6g}")


def parse_profiles(text: str, where: str) -> BoardProfiles:
    """Read what :func:`render_profiles` wrote; the profiles are at fp32 and one thread until chosen otherwise.

    Raises:
        ProfileError: not such a document, or one of another origin.
    """
    try:
        document = json.loads(text)
        if document["version"] != PROFILE_VERSION:
            raise ProfileError(
                f"{where}: version {document['version']}; this edgeprune reads version {PROFILE_VERSION}; remove the "
                "file and, if it was of your own rows, run `edgeprune profile calibrate` again with all of them"
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
        raise ProfileError(f"{where}: not a file of estimated profiles: {describe_misfit(exc)}") from exc


def _parse(row: Mapping[str, Any], board: str, where: str) -> EstimatedProfile:
    _check_names(row["parameters"], where)
    _check_names(row["spreads"], where)
    parameters = {name: Parameter(float(row["parameters"][name]), float(row["spreads"][name])) for name in PARAMETERS}
    core = Core(**row["core"])
    peaks = core.macs_per_cycle
    if "fp32" not in peaks or set(peaks) - set(VALUE_BYTES):
        raise ProfileError(f"{where}: peaks at {', '.join(peaks) or 'nothing'}; expected fp32, and known are {KNOWN}")
    facts = {name: float(getattr(core, name)) for name in FACTS if name != "macs_per_cycle"}
    figures = {name: parameter.value for name, parameter in parameters.items()} | facts
    figures |= {f"peak at {name}": float(peak) for name, peak in peaks.items()}
    figures |= {name: float(row[name]) for name in SPREADS}
    wrong = [name for name, value in figures.items() if not 0 < value < float("inf")]
    wrong += [f"spread of {name}" for name, parameter in parameters.items() if not 0 <= parameter.spread < 10]
    if wrong:
        raise ProfileError(f"{where}: {wrong[0]}: expected a figure above 0 and finite, and a spread from 0 to 10")
    settings: dict[str, Any] = {name: row[name] for name in (*SPREADS, "conditions")}
    settings |= {name: row[name] is True for name in ("winograd", "weights_only")}
    return EstimatedProfile(board, row["runtime"], core, parameters, **settings)


def _check_names(names: Iterable[str], where: str) -> None:
    wrong = sorted(set(PARAMETERS) ^ set(names))
    if wrong:
        raise ProfileError(f"{where}: parameters missing or unknown: {', '.join(wrong)}")
