"""The agent on the board, and the client's end of the conversation."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from device_models import make_model
from edgeprune_agent import files
from edgeprune_agent.errors import AgentError
from hypothesis import given
from hypothesis import strategies as st
from places import AGENT

from edgeprune.device.agent.client import EventReader, pack_agent
from edgeprune.device.transports.transport import Completed
from edgeprune.errors import ConnectionFailed, DeviceError, RemoteError, RuntimeMissing

NAME = "0" * 64


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    path = tmp_path / "board" / "agent-0.pyz"
    path.parent.mkdir()
    path.write_bytes(pack_agent())
    return path


def ask(agent: Path, text: str, *arguments: str) -> list[dict[str, Any]]:
    """Every event of one request."""
    command = [sys.executable, "-I", "-B", str(agent), *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_same_sources_pack_to_the_same_file() -> None:
    assert pack_agent() == pack_agent()


def test_the_agent_keeps_to_python_39_and_to_itself() -> None:
    allowed = {"numpy", "edgeprune_agent"} | set(sys.stdlib_module_names)
    for path in (AGENT / "edgeprune_agent").glob("*.py"):
        tree = ast.parse(path.read_text(), feature_version=(3, 9))
        imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
        imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {name.split(".")[0] for name in imported} <= allowed, path


@pytest.mark.parametrize("text", ["", "not json", "[]", "{}", '{"command": "reboot"}', '{"command": "measure"}'])
def test_a_request_that_is_none_is_an_error_and_ends(agent: Path, text: str) -> None:
    *_, error, end = ask(agent, text)
    assert error["event"] == "error"
    assert end == {"event": "end"}


def test_facts_come_from_the_tree_that_was_named(agent: Path, tmp_path: Path) -> None:
    (tmp_path / "tree" / "etc").mkdir(parents=True)
    (tmp_path / "tree" / "etc" / "os-release").write_text('PRETTY_NAME="A board"\n')
    result, _ = ask(agent, '{"command": "facts"}', "--root", str(tmp_path / "tree"))
    assert result["os"] == "A board"
    assert result["power_meter"] is None


def test_a_model_that_was_changed_on_the_board_does_not_run(agent: Path, tmp_path: Path) -> None:
    model = make_model(tmp_path, "onnxruntime")
    place = agent.parent / "models" / model.file
    place.parent.mkdir()
    place.write_bytes(model.path.read_bytes()[:-1])
    request = {"command": "measure", "models": [model.to_request()], "archive": None, "sizes": {}, "threads": 1}
    error, _ = ask(agent, json.dumps(request))
    assert (error["kind"], model.file in error["message"]) == ("hash", True)


def test_a_file_that_is_no_model_is_the_models_fault(agent: Path) -> None:
    content = b"not a model"
    name = f"{hashlib.sha256(content).hexdigest()}.onnx"
    (agent.parent / "models").mkdir()
    (agent.parent / "models" / name).write_bytes(content)
    model = {"name": "broken", "file": name, "runtime": "onnxruntime"}
    request = {"command": "measure", "models": [model], "archive": None, "sizes": {}, "threads": 1}
    *_, error, _ = ask(agent, json.dumps(request))
    assert error["kind"] == "model"
    assert error["message"].startswith("broken: onnxruntime cannot load it: ")


@pytest.mark.parametrize(
    "name",
    ["../x.onnx", "/etc/passwd", f"{NAME}.sh", f"{NAME}.onnx/..", f"x/{NAME}.onnx", f"{NAME}.onnx\n", "", None, 7],
)
def test_a_name_never_leads_out_of_the_agents_folder(name: object) -> None:
    with pytest.raises(AgentError, match="is no file name"):
        files.find_place(name)


def pack(folder: Path, members: dict[str, bytes]) -> str:
    """An archive of members in the agent's place; its name."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    name = hashlib.sha256(packed.getvalue()).hexdigest() + ".zip"
    (folder / "incoming").mkdir(exist_ok=True)
    (folder / "incoming" / name).write_bytes(packed.getvalue())
    return name


def test_an_archive_is_read_by_name_size_and_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "home", lambda: tmp_path)
    good, wrong = b"good", f"{NAME}.onnx"
    name = f"{hashlib.sha256(good).hexdigest()}.onnx"
    archive = pack(tmp_path, {name: good, wrong: b"other", "../outside": b"evil"})
    assert list(files.read_archive(archive, {name: 4})) == [(name, good)]
    for sizes, reason in (
        ({name: 5}, "not of 5 bytes"),
        ({wrong: 5}, "damaged or changed"),
        ({f"{'1' * 64}.onnx": 4}, "cannot be read"),
        ({"../outside": 4}, "is no file name"),
    ):
        with pytest.raises(AgentError, match=reason):
            list(files.read_archive(archive, sizes))
    assert not (tmp_path.parent / "outside").exists()


def test_an_archive_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "home", lambda: tmp_path)
    archive = pack(tmp_path, {f"{NAME}.onnx": b"x"})
    path = tmp_path / "incoming" / archive
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(AgentError, match="cannot be read"):
        list(files.read_archive(archive, {f"{NAME}.onnx": 1}))


def read(lines: list[str], exit_code: int = 0, stderr: str = "") -> tuple[list[dict[str, Any]], list[str]]:
    said: list[str] = []
    reader = EventReader("board", said.append)
    for line in lines:
        reader.feed(line)
    return reader.finish(Completed(exit_code, b"", stderr)), said


END = '{"event": "end"}'
RESULT = '{"event": "result", "x": 1}'


def test_what_a_login_shell_prints_first_is_skipped() -> None:
    lines = ["Welcome to the lab!", "[1, 2]", '{"event": "progress", "text": "on"}', RESULT, END]
    assert read(lines) == ([{"x": 1}], ["on"])


@pytest.mark.parametrize(
    ("lines", "exit_code", "stderr", "error", "said"),
    [
        ([RESULT, "#*!", END], 0, "", RemoteError, "garbled: '#[*]!'"),
        ([RESULT], 0, "", ConnectionFailed, "ended too soon"),
        ([], 0, "", ConnectionFailed, "ended too soon"),
        ([RESULT, END[:5]], 0, "", RemoteError, "garbled"),
        ([RESULT], 137, "", RemoteError, "killed; the board may be out of memory"),
        ([RESULT], -9, "Killed", RemoteError, "killed.*Killed"),
        ([], 1, "x\nSyntaxError: invalid syntax", RemoteError, "did not start .*SyntaxError: invalid syntax"),
        (
            ['{"event": "error", "kind": "runtime", "message": "no onnxruntime"}', END],
            0,
            "",
            RuntimeMissing,
            "board: no",
        ),
        (['{"event": "error", "kind": "disk", "message": "full"}', END], 0, "", DeviceError, "board: full"),
        (['{"event": "error"}', END], 0, "", RemoteError, "board: None"),
    ],
)
def test_a_conversation_that_is_not_whole_is_an_error(
    lines: list[str], exit_code: int, stderr: str, error: type[DeviceError], said: str
) -> None:
    with pytest.raises(error, match=said):
        read(lines, exit_code, stderr)


events = st.dictionaries(
    st.sampled_from(["event", "kind", "message", "text"]),
    st.sampled_from(["progress", "result", "error", "end", "alive", "runtime"]) | st.none() | st.integers(),
).map(json.dumps)


@given(st.lists(events | st.text(max_size=20) | st.just(RESULT) | st.just(END)), st.integers(-15, 255))
def test_no_lines_upset_the_reader(lines: list[str], exit_code: int) -> None:
    try:
        results, _ = read(lines, exit_code)
    except DeviceError as exc:
        said = str(exc)
    else:
        said = "board: "
        assert any("end" in line for line in lines)
        assert len(results) <= len(lines)
    assert said.startswith("board: ")
