"""The whole line from Python: what a run is asked for, and its verdict; part of `import edgeprune as ep`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict, Unpack

from edgeprune.core.text import suggest
from edgeprune.errors import UsageError
from edgeprune.run import SWEEP, read_json
from edgeprune.scopes import COSTS, begin_scope, find_scope

DEFAULT_RECIPE = "digits-resnet8"


class Settings(TypedDict, total=False):
    """What a run may be asked for beside its budget; the options of `edgeprune deploy` explain each."""

    target: str | None
    host: str | None
    recipe: str | None
    confidence: float | None
    sram_bytes: int | None
    flash_bytes: int | None
    runtime: str | None
    precision: str | None
    threads: int | None
    gates: str | None
    minutes: float | None
    table: str | None
    insist: bool | None
    estimate: bool | None
    set_governor: bool | None
    benchmark_model: str | None
    accelerator: str | None
    allow_busy: bool | None
    fresh: bool | None
    history: str | None


class Request(Settings, total=False):
    """What a run may be asked for."""

    latency_ms: float | None
    instructions: int | None
    speedup: float | None


SETTINGS, REQUEST = tuple(Settings.__annotations__), tuple(Request.__annotations__)


@dataclass(frozen=True)
class Deployment:
    """A finished run: its directory, and `report.json` as docs/report.md explains it."""

    directory: Path
    report: dict[str, Any]

    @property
    def verdict(self) -> str:
        """ "pass", "fail" or "inconclusive", by the gates."""
        return str(self.report["verdict"])


def deploy(run: str | Path | None = None, say: Callable[[str], None] = print, **options: Unpack[Request]) -> Deployment:
    """Take a recipe's model through the line to a verdict; `run` is its directory, perhaps begun by an earlier call.

    Raises:
        EdgepruneError: as the command line tells them, each a class of `edgeprune.errors`.
    """
    from edgeprune.pipeline import deploy as run_line
    from edgeprune.pipeline import open_job

    unknown = sorted(options.keys() - set(REQUEST))
    if unknown:
        raise UsageError(f"deploy: no {unknown[0]!r}{suggest(unknown[0], REQUEST)}")
    path = Path(run) if run is not None else None
    directory, request = settle_request(path, options)
    prepare(directory, path, say)
    with open_job(directory, request, say) as job:
        run_line(job)
        return Deployment(directory, read_json(job.run.file("report.json")))


def prepare(directory: Path, run: Path | None, say: Callable[[str], None]) -> None:
    """Begin the scope of another budget, where `directory` is one of a `run` that is named.

    Raises:
        RunError: what the run has made so far was changed, or cannot be copied.
    """
    if run is None or run == directory:
        return
    stages = begin_scope(directory, run)
    if stages:
        say(f"another budget than {run} has: {', '.join(stages)} taken over into {directory}")


def settle_request(directory: Path | None, options: Mapping[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The run directory and the request, defaults filled in where the run is a new one; of a run that was made with
    another budget the scope within it that has this one.

    Raises:
        UsageError: two budgets, no target for a new run, or the directory of a sweep.
    """
    request = {**dict.fromkeys(REQUEST), **options}
    limits = [f"--{name.replace('_', '-')}" for name in COSTS if request[name] is not None]
    if len(limits) > 1:
        raise UsageError(f"give {limits[0]} or {limits[1]}, not both")
    if directory is not None and (directory / "request.json").exists():
        return find_scope(directory, settle_paths(request))
    if directory is not None and (directory / SWEEP).exists():
        raise UsageError(
            f"{directory}: is a sweep; `edgeprune sweep --run {directory}` goes on with it, or name one of its runs"
        )
    if request["target"] is None:
        raise UsageError("--target is needed for a new run; `edgeprune targets` lists them")
    request["recipe"] = request["recipe"] or DEFAULT_RECIPE
    stem = f"{Path(request['target']).stem}-{Path(request['recipe']).stem}-{datetime.now():%Y%m%d-%H%M%S}"
    return directory or Path("runs") / stem, settle_paths(request)


def settle_paths(request: dict[str, Any]) -> dict[str, Any]:
    """Files named in a request, by their whole path, so that it can be resumed from another folder."""
    if request["history"]:
        request = request | {"history": str(Path(request["history"]).expanduser().absolute())}
    if request["benchmark_model"]:
        request = request | {"benchmark_model": str(Path(request["benchmark_model"]).resolve())}
    files = {key: request[key] for key in ("target", "recipe", "gates", "table") if request[key] is not None}
    return request | {
        key: str(Path(name).resolve()) for key, name in files.items() if Path(name).suffix in (".py", ".toml", ".json")
    }
