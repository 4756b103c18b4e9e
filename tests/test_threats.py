"""What docs/threats.md says: every test that it names is there; and rules that hold for all of the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from device_models import ignore
from places import ROOT

from edgeprune.device import meters
from edgeprune.device.agent.client import EventReader
from edgeprune.device.transports.lookup import resolve_host
from edgeprune.device.transports.transport import Completed, plain
from edgeprune.errors import DeviceError, TargetError

SOURCES = [*sorted((ROOT / "edgeprune").rglob("*.py")), *sorted((ROOT / "deploy").rglob("*.py"))]
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
NAMED = re.compile(r"`([\w/]*test_\w+\.py)::(test_\w+)`")
SCRIPTS_OF_OURS = re.compile(r"[A-Z_]+")


def calls(path: Path) -> Iterator[ast.Call]:
    yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def literals(path: Path) -> set[str]:
    """Names that a file gives to literal texts."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assign)]
    return {ast.unparse(node.targets[0]) for node in nodes if isinstance(node.value, ast.Constant)}


def test_every_test_that_the_threats_name_is_there() -> None:
    named = NAMED.findall((ROOT / "docs" / "threats.md").read_text())
    assert len(named) > 40
    missing = [f"{file}::{name}" for file, name in named if f"def {name}(" not in (ROOT / "tests" / file).read_text()]
    assert missing == []


def test_nothing_is_unpickled() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [one.name for one in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not UNPICKLERS & {name.split(".")[0] for name in names}, path
        for call in calls(path):
            name = ast.unparse(call.func)
            assert name not in ("torch.load", "torch.jit.load", "torch.package.PackageImporter"), path
            if name in ("np.load", "numpy.load"):
                assert "allow_pickle=False" in ast.unparse(call), path


def test_no_text_becomes_a_shell_command() -> None:
    """A shell runs constants of ours only; what varies are its arguments, each quoted by the transport."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in ("os.system", "os.popen", "subprocess.getoutput"), path
                assert not any(one.arg == "shell" for one in node.keywords), path
            if isinstance(node, ast.List) and [ast.unparse(one) for one in node.elts[:2]] == ["'sh'", "'-c'"]:
                parts = list(ast.walk(node.elts[2]))
                names = {part.id for part in parts if isinstance(part, ast.Name)}
                ours = {name for name in names if SCRIPTS_OF_OURS.fullmatch(name)} | literals(path)
                varying = [part for part in parts if isinstance(part, ast.Call | ast.Attribute | ast.Subscript)]
                assert names <= ours, f"{path}: {ast.unparse(node)}"
                assert not varying, f"{path}: {ast.unparse(node)}"


def test_what_a_board_says_cannot_move_the_cursor() -> None:
    hostile = "\x1b]0;title\x07\x9b2J \u202egpj.exe\r"
    line = '{"event": "error", "kind": "x", "message": "\\u001b[2Jgone\\u202e"}'
    said: list[str] = []
    reader = EventReader("board", said.append)
    reader.feed('{"event": "progress", "text": "\\u001b[31mred"}')
    reader.feed('{"event": "result", "cpu": "\\u001b[2J", "list": [1, "\\u0007", {"\\u001b": "\\n"}]}')
    reader.feed('{"event": "end"}')
    (row,) = reader.finish(Completed(0, b"", ""))
    assert said == ["?[31mred"]
    assert row == {"cpu": "?[2J", "list": [1, "?", {"?": "\n"}]}
    reader = EventReader("board", ignore)
    reader.feed(line)
    with pytest.raises(DeviceError) as caught:
        reader.finish(Completed(1, b"", hostile))
    assert str(caught.value) == "board: ?[2Jgone?"
    assert Completed(1, b"", hostile).stderr == plain(hostile) == "?]0;title??2J ?gpj.exe"


@pytest.mark.parametrize("text", ["pi:hunter2@board", "pi:hunter2@board:22", "pi:hunt@er2@board", ":hunter2@board"])
def test_a_password_in_an_address_is_refused_and_not_shown(no_devices: Path, text: str) -> None:
    with pytest.raises(TargetError, match=r":\*\*\*@board") as caught:
        resolve_host("rpi4", text)
    assert not re.search("hunt|er2", str(caught.value).split("expected")[0])


def test_a_password_of_a_plug_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(meters.PLUG_VARIABLE, "http://admin:hunter2@192.0.2.7")
    with pytest.raises(TargetError, match="has a user or password in it") as caught:
        meters.plug_address("shelly")
    assert "hunter2" not in str(caught.value)


def test_the_board_is_never_asked_for_more_rights() -> None:
    """No command of ours begins with sudo or su; messages may tell you to."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.List | ast.Tuple) and node.elts and isinstance(node.elts[0], ast.Constant):
                assert node.elts[0].value not in ("sudo", "su", "doas"), path
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                script = str(node.value.value)
                assert "\n" not in script or not re.search(r"^\s*(sudo|su|doas) ", script, re.MULTILINE), path
