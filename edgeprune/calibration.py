"""Calibrating the estimated profile of a board by whole nets measured there: from files to a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

from edgeprune.core.estimating.calibrate import Calibration, Measured, calibrate
from edgeprune.core.estimating.measured_nets import parse_layers, parse_measurements
from edgeprune.core.estimating.profiles import BoardProfiles, put_profile, render_profiles
from edgeprune.core.formats import FORMATS
from edgeprune.core.latency.layers import LayerShape
from edgeprune.core.target import Target
from edgeprune.errors import ProfileError, UsageError
from edgeprune.exporting.formats import look_inside
from edgeprune.run import write_atomic
from edgeprune.shipped import PROFILES, config_dir, load_profiles, read_profiles, shipped_dir


def calibrate_target(
    target: Target, measurements: Path, start: str | None = None, output: Path | None = None
) -> tuple[Calibration, Path]:
    """Correct the estimated profile of a target's runtime; where it was written comes with it.

    Rows that say no precision or threads are of the target's. `start` names the board whose profile is corrected, the
    target's own where it is None; `output` is where to write, a file of the user's configuration where it is None.

    Raises:
        UsageError: the target has no estimated profile and no start is named.
        ProfileError: rows that are not as expected (names the line), too few of them, or no such profile.
        RunError: the place cannot be written.
    """
    path = output or config_dir() / PROFILES / f"{target.name}.json"
    first = _start_profiles(target, start)
    place = _place_profiles(path, first, target)
    calibration = calibrate(
        first.choose(target.runtime, target.layer_precision, target.threads), read_measurements(measurements)
    )
    write_atomic(path, render_profiles(put_profile(place, calibration)))
    return calibration, path


def _start_profiles(target: Target, start: str | None) -> BoardProfiles:
    """The shipped profiles of a board, never calibrated ones: no measurement counts twice."""
    shipped = {path.stem: path for path in shipped_dir(PROFILES).glob("*.json")}
    if start is None and target.name not in shipped:
        names = ", ".join(sorted(shipped))
        raise UsageError(f"no estimated profile of {target.name!r}; name a board to start from with --start: {names}")
    return load_profiles(start or target.name, shipped)


def _place_profiles(path: Path, start: BoardProfiles, target: Target) -> BoardProfiles:
    """What a calibrated profile is put among: what the file holds; else the board's own, if it started from them."""
    profiles = read_profiles(path).profiles if path.exists() else None
    if start.board == target.name:
        return start if profiles is None else replace(start, profiles=profiles)
    description = f"{target.description} (estimated from {start.board})"
    return replace(start, board=target.name, description=description, profiles=profiles or ())


def read_measurements(path: Path) -> tuple[Measured, ...]:
    """Measured nets of a file; the models that it names are seen from its folder, and each is read once.

    Raises:
        ProfileError: a row that is not as expected; names its line.
    """
    return parse_measurements(_read(path), str(path), _reader(path.parent))


def _reader(folder: Path) -> Callable[[str], tuple[LayerShape, ...]]:
    @cache
    def read_model(name: str) -> tuple[LayerShape, ...]:
        file = folder / name
        if file.suffix.removeprefix(".") in FORMATS:
            return look_inside(file).read_shapes(file)
        if file.suffix != ".json":
            raise ProfileError(f"{name}: expected an .onnx file or a .json list of layers")
        return parse_layers(_read(file), str(file))

    return read_model


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise ProfileError(f"{path}: cannot be read: {exc}") from exc
