"""This machine as a board: the transport, and measuring, probing and evaluating through the agent."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from device_models import CONV, LINEAR, QUICK, ignore, make_model

from edgeprune.core.latency.layers import LayerShape
from edgeprune.core.target import Target
from edgeprune.device.agent.measure import evaluate_model, measure_models, measure_probes
from edgeprune.device.board import ModelFile, ProbeSettings
from edgeprune.device.connect import Device, open_device
from edgeprune.device.transports.local import LocalTransport
from edgeprune.errors import ConnectionFailed, DeviceError, NoSpace, RemoteError, RuntimeMissing
from edgeprune.exporting.runners import run_file

LOCAL = Target("local", "this machine")
both_runtimes = pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])


@pytest.fixture
def device(no_devices: Path) -> Iterator[Device]:
    with open_device(LOCAL, None) as device:
        yield device


def test_a_command_gets_its_input_and_gives_its_output_line_by_line() -> None:
    lines: list[str] = []
    script = "import sys; print('one'); print(len(sys.stdin.read()), end=''); print('e', file=sys.stderr); sys.exit(3)"
    done = LocalTransport().run([sys.executable, "-c", script], stdin=b"x" * 10**6, timeout_s=60, on_line=lines.append)
    assert (done.exit_code, done.stdout, done.stderr.strip()) == (3, b"one\n1000000", "e")
    assert lines == ["one", "1000000"]


def test_a_silent_command_is_ended() -> None:
    with pytest.raises(ConnectionFailed, match=r"local: no output for 0\.2 s"):
        LocalTransport().run(["sleep", "600"], timeout_s=0.2)


def test_a_command_that_does_not_exist_is_said_so() -> None:
    with pytest.raises(DeviceError, match="local: cannot run no-such-program: No such file"):
        LocalTransport().run(["no-such-program"], timeout_s=1)


def test_a_file_is_put_once_and_privately(tmp_path: Path) -> None:
    source, place = tmp_path / "a", tmp_path / "deep" / "b"
    source.write_bytes(b"content")
    LocalTransport().put(source, str(place))
    assert (place.read_bytes(), place.stat().st_mode & 0o777) == (b"content", 0o600)
    written = place.stat().st_mtime_ns
    LocalTransport().put(source, str(place))
    assert place.stat().st_mtime_ns == written
    assert list(place.parent.iterdir()) == [place]


def test_threads_of_one_process_put_the_same_file_at_once(tmp_path: Path) -> None:
    """As a fleet does with the agent: none finds the half of another."""
    source, place = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"x" * 2**22)
    for _ in range(5):
        place.unlink(missing_ok=True)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: LocalTransport().put(source, str(place)), range(4)))
        assert place.read_bytes() == source.read_bytes()
    assert sorted(tmp_path.iterdir()) == [source, place]


def test_a_file_that_does_not_fit_is_refused_with_the_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "a"
    source.write_bytes(b"x" * 2**20)
    usage = type("Usage", (), {"free": 2**19})
    monkeypatch.setattr("edgeprune.device.transports.local.shutil.disk_usage", lambda path: usage)
    with pytest.raises(DeviceError, match=r"needs 1\.0 MiB, 0\.5 MiB are free"):
        LocalTransport().put(source, str(tmp_path / "b"))
    assert not (tmp_path / "b").exists()


def test_facts_say_what_this_machine_is(device: Device) -> None:
    facts = device.facts
    assert (facts.host, facts.host_key, facts.python.split(".")[0]) == ("local", "", "3")
    assert facts.cores >= 1
    assert facts.memory_mib > 0
    assert device.runtime_version("onnxruntime") == facts.runtimes["onnxruntime"] != ""
    assert (Path(device.workspace).stat().st_mode & 0o777) == 0o700


@both_runtimes
def test_a_measurement_keeps_to_its_protocol(device: Device, runtime: str, tmp_path: Path) -> None:
    models = [make_model(tmp_path, runtime), make_model(tmp_path, runtime, LINEAR)]
    said: list[str] = []
    measured = measure_models(device, models, 1, QUICK, said.append)
    assert list(measured) == [model.name for model in models]
    for model, expected in zip(models, [(CONV.cin, *CONV.size), (LINEAR.cin,)], strict=True):
        one = measured[model.name]
        assert (one.sha256, one.runtime, one.device) == (model.sha256, runtime, device.facts.fingerprint)
        assert len(one.samples_ms) >= QUICK.min_samples
        assert sum(one.samples_ms) >= 1e3 * QUICK.min_duration_s or len(one.samples_ms) > 10000
        assert [len({window.process for window in one.windows}), sum(window.count for window in one.windows)] == [
            QUICK.processes,
            len(one.samples_ms),
        ]
        assert min(one.init_ms, one.first_ms, one.warmup_runs, one.peak_memory_mib or 0) > 0
        assert len(one.cold_starts_ms) == 3
        assert sorted(init_ms for init_ms, _ in one.cold_starts_ms)[1] == one.init_ms
        assert [sorted(shape) for shape in one.inputs.values()] == [sorted((1, *expected))]
        assert one.conditions.threads == 1
        assert one.conditions.overhead_us is not None
        assert one.power == "no power sensor"
        assert one.energy_mj is None
    assert f"process {QUICK.processes} of {QUICK.processes}: loading 2 models" in said


def test_a_model_is_pushed_once(device: Device, tmp_path: Path) -> None:
    model = make_model(tmp_path, "onnxruntime")
    measure_models(device, [model], 1, QUICK, ignore)
    (kept,) = (Path(device.workspace) / "models").iterdir()
    written = kept.stat().st_ctime_ns, kept.stat().st_ino
    measure_models(device, [model], 1, QUICK, ignore)
    assert kept.stat().st_ino == written[1]
    assert not list(Path(device.workspace).glob("incoming/*"))


def test_a_model_damaged_on_the_board_is_pushed_again(device: Device, tmp_path: Path) -> None:
    model = make_model(tmp_path, "onnxruntime")
    measure_models(device, [model], 1, QUICK, ignore)
    kept = Path(device.workspace) / "models" / model.file
    kept.write_bytes(b"damaged")
    measure_models(device, [model], 1, QUICK, ignore)
    assert kept.read_bytes() == model.path.read_bytes()


def test_two_runtimes_are_measured_side_by_side(device: Device, tmp_path: Path) -> None:
    models = [make_model(tmp_path, runtime) for runtime in ("onnxruntime", "litert")]
    measured = measure_models(device, models, 2, QUICK, ignore)
    assert {one.runtime for one in measured.values()} == {"onnxruntime", "litert"}


def test_more_probes_than_a_batch_are_all_measured(device: Device, tmp_path: Path) -> None:
    shapes = [LayerShape("linear", 4, width) for width in range(1, 71)]
    models = [make_model(tmp_path, "onnxruntime", shape) for shape in shapes]
    settings = ProbeSettings(rounds=4, window_s=0.0002, budget_s=60, references=(models[3].name,))
    windows = measure_probes(device, models, 1, settings, ignore)
    assert set(windows) == {model.name for model in models}
    assert all(len(of_model) >= 4 and min(window.p50_ms for window in of_model) > 0 for of_model in windows.values())
    processes = {name: {window.process for window in of_model} for name, of_model in windows.items()}
    assert processes.pop(models[3].name) == {0, 1, 2, 3}
    assert {frozenset(of_model) for of_model in processes.values()} == {frozenset({0, 1}), frozenset({2, 3})}
    assert measure_probes(device, [], 1, settings, ignore) == {}


def test_probes_without_time_still_get_two_rounds_in_each_process(device: Device, tmp_path: Path) -> None:
    settings = ProbeSettings(rounds=50, window_s=0.0001, budget_s=0.001)
    model = make_model(tmp_path, "litert")
    windows = measure_probes(device, [model], 1, settings, ignore)
    undisturbed = [window for window in windows[model.name] if not window.is_disturbed]
    assert len(undisturbed) <= 2 * settings.processes <= len(windows[model.name])


@both_runtimes
def test_outputs_of_the_agent_are_those_of_the_runtime(device: Device, runtime: str, tmp_path: Path) -> None:
    model = make_model(tmp_path, runtime)
    file_format = model.path.suffix[1:]
    shape = (CONV.cin, *CONV.size) if file_format == "onnx" else (*CONV.size, CONV.cin)
    inputs = np.random.default_rng(3).standard_normal((5, *shape), dtype=np.float32)
    outputs = evaluate_model(device, model, inputs, ignore)
    np.testing.assert_array_equal(outputs, run_file(model.path, inputs))
    assert [path.suffix for path in (Path(device.workspace) / "arrays").iterdir()] == [".npy"]


def test_floats_for_a_quantized_input_are_quantized_on_the_board(device: Device, tmp_path: Path) -> None:
    model = make_model(tmp_path, "litert", precision="int8")
    steps = np.random.default_rng(3).integers(-128, 128, (4, *CONV.size, CONV.cin), dtype=np.int8)
    scale, zero, out_scale, out_zero = _quantization(model)
    floats = ((steps.astype(np.float32) - zero) * scale).astype(np.float32)
    outputs = evaluate_model(device, model, floats, ignore)
    whole = evaluate_model(device, model, steps, ignore)
    assert (outputs.dtype, whole.dtype) == (np.float32, np.int8)
    np.testing.assert_allclose(outputs, (whole.astype(np.float32) - out_zero) * out_scale, rtol=1e-6)


def _quantization(model: ModelFile) -> tuple[float, int, float, int]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(model.path))
    return (*interpreter.get_input_details()[0]["quantization"], *interpreter.get_output_details()[0]["quantization"])


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (np.zeros((2, 3, 8, 8), np.float32), r"shape of \w+: \[1, 3, 8, 8\] does not fit \[1, 3, 16, 16\]"),
        (np.zeros((0, 3, 16, 16), np.float32), "there are no inputs"),
        (np.zeros((2, 3, 16, 16), np.int64), "inputs are int64, but the model takes float32"),
    ],
)
def test_inputs_that_do_not_fit_are_said_so(device: Device, tmp_path: Path, inputs: np.ndarray, said: str) -> None:
    with pytest.raises(RemoteError, match=said):
        evaluate_model(device, make_model(tmp_path, "onnxruntime"), inputs, ignore)


def test_a_missing_runtime_is_named_with_its_remedy(device: Device, tmp_path: Path) -> None:
    bare = replace(device, facts=replace(device.facts, runtimes={}))
    with pytest.raises(RuntimeMissing, match=r"onnxruntime is not installed for .*; run: pip install onnxruntime"):
        measure_models(bare, [make_model(tmp_path, "onnxruntime")], 1, QUICK, ignore)
    with pytest.raises(RuntimeMissing, match=r"onnxruntime is not installed for .*; run: pip install onnxruntime"):
        evaluate_model(bare, make_model(tmp_path, "onnxruntime"), np.zeros((1, CONV.cin, *CONV.size)), ignore)


def test_a_file_that_changed_since_its_export_is_not_pushed(device: Device, tmp_path: Path) -> None:
    model = make_model(tmp_path, "onnxruntime")
    model.path.write_bytes(b"something else")
    with pytest.raises(DeviceError, match="changed since it was exported"):
        measure_models(device, [model], 1, QUICK, ignore)


def test_a_target_may_name_its_interpreter(no_devices: Path) -> None:
    with (
        pytest.raises(DeviceError, match=r"local: no Python there \(/no/python\)"),
        open_device(replace(LOCAL, python="/no/python"), None),
    ):
        pass


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, NoSpace), (errno.EDQUOT, NoSpace), (errno.EACCES, None)])
def test_a_disk_that_fills_while_a_file_is_put_is_told_apart(
    number: int, kind: type[DeviceError] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: Path, place: Path) -> None:
        raise OSError(number, "it does not work")

    (tmp_path / "a").write_bytes(b"x")
    monkeypatch.setattr("edgeprune.device.transports.local.shutil.copyfile", fail)
    with pytest.raises(DeviceError, match="b: cannot be written: it does not work") as told:
        LocalTransport().put(tmp_path / "a", str(tmp_path / "b"))
    assert isinstance(told.value, NoSpace) == (kind is NoSpace)
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]
