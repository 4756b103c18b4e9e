"""Ask a board's agent for latencies, probe times and outputs."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.core.answers import each, named, number, text
from edgeprune.core.boards.phone import PhoneState
from edgeprune.core.measuring.measurement import Measurement, Protocol, parse_figures
from edgeprune.core.measuring.sustained import SustainedRun, parse_sustained
from edgeprune.core.measuring.validity import find_problems
from edgeprune.core.measuring.windows import Window, parse_probe_window
from edgeprune.core.target import Target
from edgeprune.device.agent.client import ask_agent, call_agent, put_bytes, understood
from edgeprune.device.board import ModelFile, ProbeSettings, Progress
from edgeprune.device.connect import Device
from edgeprune.device.phone.state import read_state
from edgeprune.device.transports.transport import AGAIN, hash_file
from edgeprune.errors import DeviceError, RemoteError

EVALUATION_THREADS = 1
TOLD_BYTES = 1_000_000


def measure_models(
    device: Device, models: Sequence[ModelFile], threads: int, protocol: Protocol, progress: Progress
) -> dict[str, Measurement]:
    """Latency of models by name: one push of those that the board lacks, one command, interleaved rounds.

    Raises:
        RuntimeMissing: the board lacks a runtime.
        DeviceError: anything else that goes wrong there.
    """
    request = {
        "command": "measure",
        **push_models(device, models, progress),
        "threads": threads,
        "rounds": protocol.rounds,
        "processes": protocol.processes,
        "min_samples": protocol.min_samples,
        "min_duration_s": protocol.min_duration_s,
        "max_warmup_s": protocol.max_warmup_s,
        "start_temperature_c": protocol.start_temperature_c,
        "max_cooldown_s": protocol.max_cooldown_s,
    }
    rows = {str(row.get("name")): row for row in call_agent(device.agent, request, progress)}
    state = read_state(device.transport) if device.transport.name == "adb" else PhoneState()
    measurements = {model.name: _add_state(_parse_row(device, model, rows.get(model.name)), state) for model in models}
    return {
        name: replace(measurement, problems=find_problems(measurement, protocol))
        for name, measurement in measurements.items()
    }


def _add_state(measurement: Measurement, state: PhoneState) -> Measurement:
    """The measurement with a phone's state among its conditions."""
    throttled = (*measurement.conditions.throttled, *state.throttled)
    conditions = replace(measurement.conditions, notes=state.notes, throttled=throttled)
    return replace(measurement, conditions=conditions)


def sustain_model(
    device: Device, model: ModelFile, target: Target, duration_s: float, progress: Progress
) -> SustainedRun:
    """Run one model without a pause; what it takes over time.

    Raises:
        RuntimeMissing: the board lacks the runtime.
        DeviceError: anything else that goes wrong there.
    """
    request = {
        "command": "sustain",
        **push_models(device, [model], progress),
        "threads": target.threads,
        "duration_s": duration_s,
        "start_temperature_c": target.protocol.start_temperature_c,
        "max_cooldown_s": target.protocol.max_cooldown_s,
    }
    row = ask_agent(device.agent, request, progress)
    with understood(device.facts.host, "the sustained run"):
        return parse_sustained(row, duration_s)


def measure_probes(
    device: Device, models: Sequence[ModelFile], threads: int, settings: ProbeSettings, progress: Progress
) -> dict[str, tuple[Window, ...]]:
    """Short windows by model name; for hundreds of tiny models, pushed as one archive.

    Raises:
        RuntimeMissing: the board lacks a runtime.
        DeviceError: anything else that goes wrong there.
    """
    if not models:
        return {}
    _check(device, models)
    pushed = _push_archive(device, models, {model.file for model in models}, progress)
    row = ask_agent(device.agent, {"command": "probe", **pushed, "threads": threads, **asdict(settings)}, progress)
    with understood(device.facts.host, "the times of layers"):
        windows = {
            name: tuple(map(parse_probe_window, rows))
            for name, rows in named(each(each(number)))(row["windows"]).items()
        }
    missing = [model.name for model in models if not windows.get(model.name)]
    if missing:
        raise RemoteError(f"{device.facts.host}: the agent gave no times of {', '.join(missing[:3])}; {AGAIN}")
    return {model.name: windows[model.name] for model in models}


def evaluate_model(device: Device, model: ModelFile, inputs: np.ndarray, progress: Progress) -> np.ndarray:
    """Outputs `[N, ...]` of a model with a batch of 1 for inputs `[N, ...]`, from its runtime on the board.

    Floats given to a quantized input are quantized there by its scale, and its outputs dequantized.

    Raises:
        RuntimeMissing: the board lacks the runtime.
        DeviceError: the inputs do not fit, or anything else that goes wrong there.
    """
    _check(device, [model])
    packed = io.BytesIO()
    np.save(packed, np.ascontiguousarray(inputs), allow_pickle=False)
    name = sha256(packed.getbuffer()).hexdigest() + ".npy"
    put_bytes(device.transport, packed.getvalue(), f"{device.workspace}/arrays/{name}")
    request = {"command": "evaluate", **push_models(device, [model]), "threads": EVALUATION_THREADS, "inputs": name}
    return _fetch_array(device, str(ask_agent(device.agent, request, progress).get("outputs")))


def _fetch_array(device: Device, name: str) -> np.ndarray:
    remote = f"{device.workspace}/arrays/{Path(name).name}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "outputs.npy"
        device.transport.get(remote, path)
        device.transport.run(["rm", "-f", "--", remote], timeout_s=30)
        if hash_file(path) != name.removesuffix(".npy"):
            raise RemoteError(f"{device.facts.host}: the outputs were damaged on the way; {AGAIN}")
        try:
            return np.asarray(np.load(path, allow_pickle=False))
        except (ValueError, OSError, EOFError, MemoryError) as exc:
            raise RemoteError(f"{device.facts.host}: the outputs are not an array: {exc}") from exc


def _check(device: Device, models: Sequence[ModelFile]) -> None:
    for runtime in sorted({model.runtime for model in models}):
        device.require_runtime(runtime)
    if len({model.name for model in models}) != len(models):
        raise DeviceError("two models have the same name; results are told apart by it")


def push_models(device: Device, models: Sequence[ModelFile], progress: Progress = lambda _: None) -> dict[str, Any]:
    """Push those models that the board lacks, several as one archive; gives what a request says of them.

    Raises:
        RuntimeMissing: the board lacks a runtime.
        DeviceError: anything else that goes wrong there.
    """
    _check(device, models)
    files = {model.file for model in models}
    if len(files) == 1:
        content = _read(models[0])
        _tell_size(len(content), progress)
        put_bytes(device.transport, content, f"{device.workspace}/models/{models[0].file}")
        return _push_archive(device, models, set())
    row = ask_agent(device.agent, {"command": "have", "files": sorted(files)})
    with understood(device.facts.host, "its files"):
        present = each(text)(row["have"])
    return _push_archive(device, models, files - set(present), progress)


def _tell_size(size: int, progress: Progress) -> None:
    """Say what is sent, where a slow link needs seconds for it."""
    if size >= TOLD_BYTES:
        progress(f"sending {size / 1e6:.1f} MB")


def _push_archive(
    device: Device, models: Sequence[ModelFile], files: set[str], progress: Progress = lambda _: None
) -> dict[str, Any]:
    rows = [model.to_request() for model in models]
    contents = {model.file: _read(model) for model in models if model.file in files}
    if not contents:
        return {"models": rows, "archive": None, "sizes": {}}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    name = sha256(packed.getbuffer()).hexdigest() + ".zip"
    _tell_size(len(packed.getbuffer()), progress)
    put_bytes(device.transport, packed.getvalue(), f"{device.workspace}/incoming/{name}")
    return {"models": rows, "archive": name, "sizes": {name: len(content) for name, content in contents.items()}}


def _read(model: ModelFile) -> bytes:
    try:
        content = model.path.read_bytes()
    except OSError as exc:
        raise DeviceError(f"{model.path}: cannot be read to push it: {exc.strerror}") from exc
    if sha256(content).hexdigest() != model.sha256:
        raise DeviceError(f"{model.path}: changed since it was exported (its sha256 is not {model.sha256[:16]}...)")
    return content


def _parse_row(device: Device, model: ModelFile, row: dict[str, Any] | None) -> Measurement:
    """A measurement from what the agent says."""
    if row is None:
        raise RemoteError(f"{device.facts.host}: the agent gave no measurement of {model.name}; {AGAIN}")
    with understood(device.facts.host, f"the measurement of {model.name}"):
        return Measurement(
            artifact=model.name,
            sha256=model.sha256,
            runtime=model.runtime,
            runtime_version=device.runtime_version(model.runtime),
            device=device.facts.fingerprint,
            power=device.facts.power_meter,
            **parse_figures(row),
        )
