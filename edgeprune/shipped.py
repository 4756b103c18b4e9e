"""Where targets and profiles are looked up: explicit path, the working folder, the user's config, what is shipped."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.core.text import suggest
from edgeprune.errors import ProfileError, TargetError

if TYPE_CHECKING:
    from edgeprune.core.estimating.microcontrollers import Microcontroller
    from edgeprune.core.estimating.profiles import BoardProfiles
    from edgeprune.core.target import Target

PACKAGE = Path(__file__).parent
PROFILES = "hardware_profiles"


def shipped_dir(name: str) -> Path:
    """The shipped folder `targets`, `hardware_profiles` or `deploy`: in the wheel, else in the checkout."""
    inside = PACKAGE / "_shipped" / name
    return inside if inside.is_dir() else PACKAGE.parent / name


def config_dir() -> Path:
    """`$XDG_CONFIG_HOME/edgeprune`, else `~/.config/edgeprune`."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "edgeprune"


def cache_dir() -> Path:
    """Where data, latency tables and this machine's own board folder are kept.

    `$EDGEPRUNE_CACHE`, else `~/.cache/edgeprune`.
    """
    return Path(os.environ.get("EDGEPRUNE_CACHE") or Path.home() / ".cache" / "edgeprune").expanduser().absolute()


def list_targets() -> dict[str, Path]:
    """Every target by name; the nearest place wins."""
    paths: dict[str, Path] = {}
    for folder in (shipped_dir("targets"), config_dir() / "targets", Path("targets")):
        paths |= {path.stem: path for path in sorted(folder.glob("*.toml"))}
    return paths


def find_target(name_or_path: str) -> Path:
    """The file of a target, named or given as a `.toml` file.

    Raises:
        TargetError: no such target.
    """
    if name_or_path.endswith(".toml"):
        return Path(name_or_path)
    paths = list_targets()
    if name_or_path not in paths:
        raise TargetError(f"no target {name_or_path!r}{suggest(name_or_path, paths)}")
    return paths[name_or_path]


def load_target(name_or_path: str) -> Target:
    """Load a target by name, or from a `.toml` file.

    Raises:
        TargetError: no such target, or the file is not valid.
    """
    from edgeprune.core.target import parse_target

    file, path = name_or_path if name_or_path.endswith(".toml") else "", find_target(name_or_path)
    return replace(parse_target(_read_toml(path), path.stem, _display(path)), file=file)


def list_profiles() -> dict[str, Path]:
    """Every file of estimated profiles by board; the nearest place wins, so that a calibrated one is taken."""
    paths: dict[str, Path] = {}
    for folder in (shipped_dir(PROFILES), config_dir() / PROFILES, Path(PROFILES)):
        paths |= {path.stem: path for path in sorted(folder.glob("*.json"))}
    return paths


def load_profiles(name_or_path: str, paths: Mapping[str, Path]) -> BoardProfiles:
    """Load the estimated profiles of a board out of those that are known, or from a `.json` file.

    Raises:
        ProfileError: no such profiles, or the file is not valid.
    """
    if name_or_path.endswith(".json"):
        return read_profiles(Path(name_or_path))
    if name_or_path not in paths:
        raise ProfileError(f"no estimated profile of {name_or_path!r}{suggest(name_or_path, paths)}")
    return read_profiles(paths[name_or_path])


def read_profiles(path: Path) -> BoardProfiles:
    """Read a file of estimated profiles.

    Raises:
        ProfileError: no such file, or it is not valid.
    """
    from edgeprune.core.estimating.profiles import parse_profiles

    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise ProfileError(f"{path}: cannot be read: {exc}") from exc
    return parse_profiles(text, str(path))


def load_microcontroller(target: Target) -> Microcontroller | None:
    """A target's core with the shipped prices in cycles; None where its facts name no microcontroller and its clock.

    Raises:
        ProfileError: the file of prices cannot be read.
    """
    from edgeprune.core.estimating.cycles import parse_cycles
    from edgeprune.core.estimating.microcontrollers import Microcontroller, find_core

    core = find_core([*((fact.name, fact.value) for fact in target.hardware), ("", target.description)])
    if core is None:
        return None
    path = shipped_dir(PROFILES) / "cycles" / "mcu.json"
    try:
        table = parse_cycles(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as exc:
        raise ProfileError(f"{path}: cannot be read: {exc}") from exc
    return Microcontroller(target.name, target.description, *core, table)


def load_estimate(target: Target) -> BoardProfiles | Microcontroller:
    """The estimated profiles of a target's board: a calibrated or shipped file of its name, else its core's cycles.

    Raises:
        ProfileError: there are none, or the file is not valid.
    """
    paths = list_profiles()
    board = None if target.name in paths else load_microcontroller(target)
    return board or load_profiles(target.name, paths)


def load_gates(path: Path, target: Target) -> Target:
    """The target with the `[[gates]]` of a file, its `[[baseline]]`, or both, in place of its own.

    Raises:
        TargetError: the file is not valid.
    """
    from edgeprune.core.target import parse_gates, parse_regression_limits

    document = _read_toml(path)
    if set(document) - {"gates", "baseline"} or not any(document.values()):
        found = ", ".join(document) or "nothing"
        raise TargetError(f"{path}: expected [[gates]], [[baseline]] or both and nothing else, found: {found}")
    if "gates" in document:
        target = replace(target, gates=parse_gates(document["gates"], f"{path}: gates"))
    if "baseline" in document:
        target = replace(target, baseline=parse_regression_limits(document["baseline"], f"{path}: baseline"))
    return target


def _read_toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError as exc:
        raise TargetError(f"{path}: no such file") from exc
    except (OSError, ValueError, RecursionError) as exc:
        raise TargetError(f"{path}: cannot be read as TOML: {exc}") from exc


def _display(path: Path) -> str:
    return f"targets/{path.name}" if path.parent.name == "targets" else str(path)
