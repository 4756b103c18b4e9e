"""Login shells of every kind, that print what nobody asked for: commands, files and the doctor get through."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from device_models import QUICK, ignore, make_model
from hypothesis import given
from hypothesis import strategies as st
from ssh_server import SshServer

from edgeprune.core.target import Target
from edgeprune.device.agent.measure import measure_models
from edgeprune.device.connect import open_device, shake_hands
from edgeprune.device.preparing.doctor import examine_board
from edgeprune.device.ssh.transport import SshTransport, connect
from edgeprune.device.transports.address import Address
from edgeprune.device.transports.frames import Frame, Framed
from edgeprune.errors import DeviceError

BOARD = Address("board")
TARGET = Target("rpi4", "a board of the tests")
ESCAPE = r"\033]0;lab\007\033[1m$ "
"""A title and a prompt, without the end of a line."""
GREETINGS = {
    "sh": (".profile", ""),
    "bash": (".bashrc", ""),
    "ksh": (".kshrc", ""),
    "zsh": (".zshenv", f"echo Welcome; printf '{ESCAPE}'; echo noise >&2"),
    "csh": (".cshrc", f"echo Welcome; printf '{ESCAPE}'"),
    "tcsh": (".tcshrc", f"echo Welcome; printf '{ESCAPE}'"),
    "fish": (".config/fish/config.fish", f"echo Welcome; printf '{ESCAPE}'; echo noise >&2"),
}
"""The file that each shell reads first, and what it has to say there; the first three read none for a command."""
HOSTILE = [
    "a b",
    "$HOME",
    "`id`",
    "'; touch pwned; '",
    '"',
    "*",
    "\\",
    "\\n",
    "%s",
    "!",
    "!!",
    "",
    "ü",
    "-n",
    "a\nb",
    "~",
]


@pytest.fixture(params=GREETINGS)
def shell(request: pytest.FixtureRequest, ssh_server: SshServer) -> SshServer:
    """The board of a user whose login shell greets."""
    path = shutil.which(request.param)
    if path is None:
        pytest.skip(f"no {request.param} here: run deploy/setup/test_packages.sh as root")
    name, text = GREETINGS[request.param]
    place = ssh_server.board / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"{text}\n")
    ssh_server.restart(prelude=f"printf '{ESCAPE}'; ", shell=path, epilogue="; echo Good bye; echo bye >&2")
    return ssh_server


@pytest.fixture
def link(shell: SshServer) -> Iterator[SshTransport]:
    with closing(connect(BOARD)) as transport:
        yield transport


def test_a_greeting_is_no_part_of_what_a_command_prints(link: SshTransport) -> None:
    lines: list[str] = []
    done = link.run(["printf", "%s|", *HOSTILE], timeout_s=20, on_line=lines.append)
    assert done.stdout.decode() == "".join(f"{one}|" for one in HOSTILE)
    assert "\n".join(lines) == done.stdout.decode()
    assert (done.exit_code, done.stderr) == (0, "")
    assert "$" in done.noise
    failed = link.run(["sh", "-c", "echo 'not here' >&2; printf '\\0<'; exit 7"], timeout_s=20)
    assert (failed.exit_code, failed.stdout, failed.stderr) == (7, b"\0<", "not here\n")


def test_files_and_the_handshake_get_through(link: SshTransport, shell: SshServer, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(os.urandom(3 << 18))
    link.put(source, "it's $HOME/f!le")
    link.get("it's $HOME/f!le", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    workspace, python = shake_hands(link, "")
    assert workspace == f"{shell.board}/.cache/edgeprune/board"
    assert python == f"{shell.board}/.local/share/edgeprune/venv/bin/python"


def test_a_board_whose_shell_prints_is_measured_and_examined(ssh_server: SshServer, tmp_path: Path) -> None:
    ssh_server.restart(prelude=f"echo Welcome to the lab; printf '{ESCAPE}'; ")
    with open_device(TARGET, "board") as device:
        assert measure_models(device, [make_model(tmp_path, "onnxruntime")], 1, QUICK, ignore)
    _, findings = examine_board(TARGET, "board")
    (finding,) = [one for one in findings if "login shell prints text" in one.what]
    assert finding.severity == "note"
    assert "Welcome to the lab" in finding.what
    ssh_server.restart(prelude="")
    _, findings = examine_board(TARGET, "board")
    assert not [one for one in findings if "login shell" in one.what]


@pytest.mark.parametrize("shell", ["/usr/sbin/nologin", "/bin/false", "echo only git is served here; false"])
def test_an_account_that_runs_no_commands_is_told(ssh_server: SshServer, shell: str) -> None:
    ssh_server.restart(shell=shell)
    with closing(connect(BOARD)) as link, pytest.raises(DeviceError) as caught:
        link.run(["true"], timeout_s=20)
    assert "board: its login shell runs no commands: " in str(caught.value)
    assert "give the user a login shell such as /bin/sh" in str(caught.value)


CHUNKS = st.lists(st.binary(max_size=40), max_size=6)


@given(CHUNKS, CHUNKS, CHUNKS, st.integers(0, 255), st.data())
def test_a_frame_gives_exactly_what_stands_between_its_marks(
    before: list[bytes], content: list[bytes], after: list[bytes], code: int, data: st.DataObject
) -> None:
    """However the stream is cut into pieces."""
    frame = Framed(["true"], word="w0rd").frames()[0]
    stream = b"".join([*before, frame.begin, *content, frame.end, b"%d>" % code, *after])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    taken = b"".join(frame.feed(piece) for piece in pieces) + frame.finish()
    assert taken == b"".join(content)
    assert frame.exit_code == code
    assert frame.noise == b"".join(before + after).decode(errors="replace") or any(b > 127 for b in stream)


@given(st.binary(max_size=60))
def test_a_frame_without_an_end_keeps_what_came(content: bytes) -> None:
    frame = Frame("w0rd")
    assert frame.feed(frame.begin + content) + frame.finish() == content
    assert (frame.begun, frame.exit_code) == (True, None)
    bare = Frame("w0rd")
    assert bare.feed(content) + bare.finish() == b""
    assert (bare.begun, bare.noise) == (False, content.decode(errors="replace")) or any(b > 127 for b in content)
