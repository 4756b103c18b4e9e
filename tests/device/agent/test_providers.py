"""Execution providers: which nodes each ran, and that a fall-back to the CPU is never silent."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from device_models import QUICK, ignore, make_model
from edgeprune_agent import providers
from edgeprune_agent.errors import AgentError
from hypothesis import given
from hypothesis import strategies as st
from places import RECORDS

from edgeprune.core.target import Target, parse_target
from edgeprune.device.agent.measure import measure_models
from edgeprune.device.connect import open_device
from edgeprune.errors import RuntimeMissing, TargetError

PROFILES = json.loads((RECORDS / "profiles.json").read_text())
LOCAL = Target("local", "this machine")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["Node", "Conv_kernel_time"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["cat", "name", "args", "provider", "op_name"]) | st.text(max_size=3), inner)
    ),
)


@pytest.mark.parametrize("record", PROFILES, ids=lambda record: str(record["what"]))
def test_nodes_of_a_profile_are_counted_by_provider(record: dict[str, Any]) -> None:
    counts = providers.count_nodes(record["profile"])
    assert counts == record["counts"]
    request = {"provider": record["provider"]}
    if record["error"] is None:
        providers.check_fallback(counts, request)
    else:
        with pytest.raises(AgentError, match=record["error"]):
            providers.check_fallback(counts, request)
        providers.check_fallback(counts, {**request, "allow_fallback": True})


@given(JSON)
def test_no_profile_upsets_the_count(profile: Any) -> None:
    counts = providers.count_nodes(profile)
    assert all(count > 0 for operators in counts.values() for count in operators.values())


def test_a_real_profile_has_every_node_on_the_cpu(tmp_path: Path) -> None:
    model = make_model(tmp_path, "onnxruntime")
    request = {"runtime": "onnxruntime", "threads": 1}
    session = providers.make_session(onnxruntime, str(model.path), request, str(tmp_path / "profile"))
    (source,) = session.get_inputs()
    session.run(None, {source.name: np.zeros(source.shape, np.float32)})
    counts = providers.count_nodes(json.loads(Path(session.end_profiling()).read_text()))
    assert list(counts) == ["CPUExecutionProvider"]
    assert any("Conv" in operator for operator in counts["CPUExecutionProvider"])


class FakeRuntime:
    """An ONNX Runtime of another build."""

    __version__ = "9.9"

    def __init__(self, there: list[str], started: list[str]) -> None:
        self.there, self.started = there, started
        self.asked: list[Any] = []

    class ExecutionMode:
        ORT_SEQUENTIAL = 0

    class SessionOptions:
        entries: dict[str, str] = {}

        def add_session_config_entry(self, name: str, value: str) -> None:
            self.entries[name] = value

    def get_available_providers(self) -> list[str]:
        return self.there

    def InferenceSession(self, model: str, options: Any, providers: list[Any]) -> Any:
        self.asked, self.options = providers, options
        return type("Session", (), {"get_providers": lambda session: self.started})()


CUDA, CPU, TENSORRT = "CUDAExecutionProvider", "CPUExecutionProvider", "TensorrtExecutionProvider"


def test_tensorrt_leaves_nodes_to_cuda_before_the_cpu() -> None:
    there = [TENSORRT, CUDA, CPU]
    fake = FakeRuntime(there, there)
    providers.make_session(fake, "model", {"provider": "tensorrt", "threads": 2})
    assert [name for name, _ in fake.asked] == there
    assert (fake.options.intra_op_num_threads, fake.options.inter_op_num_threads) == (2, 1)
    assert fake.options.execution_mode == fake.ExecutionMode.ORT_SEQUENTIAL


def test_xnnpack_gets_the_threads_that_onnxruntime_does_not_take() -> None:
    fake = FakeRuntime(["XnnpackExecutionProvider", CPU], ["XnnpackExecutionProvider", CPU])
    providers.make_session(fake, "model", {"provider": "xnnpack", "threads": 4})
    assert fake.asked[0] == ("XnnpackExecutionProvider", {"intra_op_num_threads": "4"})
    assert fake.options.intra_op_num_threads == 1
    assert fake.options.entries == {"session.intra_op.allow_spinning": "0"}


def test_a_provider_that_is_built_in_but_does_not_start_is_told() -> None:
    fake = FakeRuntime([CUDA, CPU], [CPU])
    with pytest.raises(
        AgentError, match=r"CUDAExecutionProvider is in onnxruntime 9\.9, but did not start .* run on CPU"
    ):
        providers.make_session(fake, "model", {"provider": "cuda", "threads": 1})
    providers.make_session(fake, "model", {"provider": "cuda", "threads": 1, "allow_fallback": True})


def test_a_provider_that_this_build_lacks_is_an_error_unless_allowed(no_devices: Path, tmp_path: Path) -> None:
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    model, target = make_model(tmp_path, "onnxruntime"), replace(LOCAL, provider="cuda")
    said = r"has no CUDAExecutionProvider \(only .*CPUExecutionProvider.*provider = \"cpu\", or allow_fallback"
    with open_device(target, None) as device, pytest.raises(RuntimeMissing, match=said):
        measure_models(device, [model], 1, QUICK, ignore)
    with open_device(replace(target, allow_fallback=True), None) as device:
        one = measure_models(device, [model], 1, QUICK, ignore)[model.name]
    assert one.providers == {CPU: 1.0}
    assert one.runtime_version.endswith("+cuda")


def test_the_cpu_alone_needs_no_profile(no_devices: Path, tmp_path: Path) -> None:
    model = make_model(tmp_path, "onnxruntime")
    with open_device(LOCAL, None) as device:
        one = measure_models(device, [model], 1, QUICK, ignore)[model.name]
    assert (one.providers, one.runtime_version) == ({}, onnxruntime.__version__)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"provider": "cudo"}, "provider: 'cudo' is not known; did you mean 'cuda'"),
        ({"provider": "cuda", "runtime": "litert"}, "litert does not know it; leave provider out, or write runtime = "),
        ({"allow_fallback": 1}, "allow_fallback: 1 has the wrong type"),
        ({"cores": [0, 0]}, "names a core twice"),
        ({"cores": []}, r"expected core numbers, as \[4, 5\], or \"fastest\""),
        ({"cores": "fast"}, "expected core numbers"),
        ({"cores": [True]}, "expected core numbers"),
        ({"cores": [-1]}, "expected core numbers"),
        ({"cores": [1], "threads": 2}, r"cores: \[1\] for 2 threads; name a core for each"),
        ({"protocol": {"round": 3}}, "protocol.*unknown key 'round'; did you mean 'rounds'"),
        ({"protocol": 3}, "protocol.*expected a table"),
        ({"protocol": {"start_temperature_c": 0}}, "start_temperature_c: 0 must be above zero"),
    ],
)
def test_a_target_that_cannot_be_meant_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(TargetError, match=said):
        parse_target({"description": "a board", **more}, "a", "a.toml")


def test_a_target_says_on_which_cores_and_with_what() -> None:
    document = {"description": "a board", "cores": [4, 5], "threads": 2, "provider": "tensorrt", "allow_fallback": True}
    target = parse_target(document, "a", "a.toml")
    assert (target.cores, target.provider, target.allow_fallback) == ((4, 5), "tensorrt", True)
    assert parse_target({"description": "a board", "cores": "fastest", "threads": 4}, "a", "a").cores == "fastest"
