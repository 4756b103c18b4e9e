"""The SSH configuration as ssh reads it: held against the real `ssh -G` over random files, and tried on a server."""

from __future__ import annotations

import getpass
import shutil
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ssh_server import SshServer

from edgeprune.device.ssh import config as ssh_config
from edgeprune.device.ssh.config import Query, list_config_hosts, read_settings, split_words
from edgeprune.device.ssh.transport import connect
from edgeprune.device.transports.address import Address
from edgeprune.device.transports.endpoint import find_endpoint
from edgeprune.errors import ConnectionFailed

if shutil.which("ssh") is None:
    pytest.skip("no ssh: install openssh-client", allow_module_level=True)

HOST_LINES = ["Host board", "Host b* !board", "Host *", "Host other", 'Host "board"', "host=board", "Host !other *"]
MATCH_LINES = [
    "Match all", "Match host board", "Match host other", "Match host *.lan", "Match originalhost board",
    "Match !originalhost board user ada", "Match user ada", "Match final host board.lan", "Match final all",
    "Match exec true", 'Match exec "test %n = other"', 'Match host board exec "false"', "Match canonical all",
]  # fmt: skip
VALUES = [
    "Port 22 # comment", "Port=2222", "port   2223", "User ada", 'User "ben" # two', "User a#b", "User 'cy'",
    "HostName %h.lan", "HostName 10.0.0.7", "Hostname=ho#st",
    "IdentityFile /k1", 'IdentityFile "/k 2"', "IdentityFile /%n/%r/%p/%h",
    "IdentitiesOnly yes", "ProxyJump ada@jump:2200,other", "ProxyJump none", 'UserKnownHostsFile "/a b" /c # d',
    "UserKnownHostsFile none", "HostKeyAlias alias", "GlobalKnownHostsFile /g1 '/g 2'", "", "# User eve", "   # eve",
]  # fmt: skip
LINES = st.sampled_from([*HOST_LINES, *MATCH_LINES, *VALUES, *VALUES]).flatmap(
    lambda line: st.sampled_from(["", "  ", "\t"]).map(lambda space: space + line)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config")


def ask_ssh(path: Path, host: str) -> dict[str, list[str]]:
    done = subprocess.run(["ssh", "-G", "-F", path, host], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition(" ")
        found.setdefault(name, []).append(value)
    return found


@settings(max_examples=150)
@given(lines=st.lists(LINES, max_size=8), included=st.lists(LINES, max_size=4), place=st.integers(0, 8))
@example(lines=["Host other", "User ada"], included=["Port 3", "Host board", "User ben"], place=1)
@example(lines=["Host board", "User ada"], included=["Host other", "Port 1", "Host board", "Port 2"], place=1)
@example(lines=["User ada"], included=["Host other", "Port 1"], place=0)
def test_a_host_is_looked_up_as_ssh_does(folder: Path, lines: list[str], included: list[str], place: int) -> None:
    path, other = folder / "config", folder / "included"
    lines = [*lines[:place], f"Include {folder}/incl* {folder}/none", *lines[place:]]
    path.write_text("\n".join(lines) + "\n")
    other.write_text("\n".join(included) + "\n")
    theirs = ask_ssh(path, "board")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssh_config, "config_path", lambda: path)
        patch.setattr(ssh_config, "SYSTEM_CONFIG", folder / "absent" / "ssh_config")
        found = read_settings(Query("board", None))
        assert found.host == theirs["hostname"][0]
        assert found.user == theirs["user"][0]
        assert found.first("port", "22") == theirs["port"][0]
        assert found.first("identitiesonly", "no") == theirs["identitiesonly"][0]
        assert found.first("hostkeyalias") == theirs.get("hostkeyalias", [""])[0]
        keys = found.values.get("identityfile")
        assert keys is None or keys == theirs["identityfile"][: len(keys)]
        for name in ("userknownhostsfile", "globalknownhostsfile"):
            assert name not in found.values or " ".join(found.values[name]) == theirs[name][0]
        jump = next((name for name in found.values if name.startswith("proxy")), "")
        assert found.first(jump, "none") == theirs.get("proxyjump", ["none"])[0]


@given(st.text(st.sampled_from("ab \t\"'\\#=%"), max_size=12))
def test_words_are_split_or_refused_with_their_place(text: str) -> None:
    try:
        words = split_words(text, "config:7")
    except ConnectionFailed as exc:
        assert str(exc).startswith("config:7: a quotation has no end")  # noqa: PT017
    else:
        assert all(isinstance(word, str) for word in words)


REFUSED = [
    ("Host board\n  Port twenty-two\n", r"config: Host board: Port twenty-two: expected a number from 1 to 65535"),
    ("Host board\n  Port 70000\n", "Port 70000: expected a number"),
    ("Host board\n  Port\n", r"config:2: Port has no value"),
    ('Host board\n  User "pi\n', r"config:2: a quotation has no end"),
    ("Match colour red\n", r"config:1: Match colour: is not understood here; expected all, final, host"),
    ("Match host\n", r"config:1: Match host: is not understood here"),
    ("Host board\nIdentityFile %z\n", r"config: Host board: %z is not known here"),
    ("Include config\n", r"config:1: files include each other more than 16 deep"),
]


@pytest.mark.parametrize(("text", "said"), REFUSED)
def test_what_is_not_understood_is_told_with_its_place(no_devices: Path, text: str, said: str) -> None:
    (no_devices / ".ssh").mkdir()
    (no_devices / ".ssh" / "config").write_text(text)
    with pytest.raises(ConnectionFailed, match=said):
        find_endpoint(Address("board"))


def test_a_file_that_may_not_be_read_is_told(no_devices: Path) -> None:
    (no_devices / ".ssh" / "config").mkdir(parents=True)
    with pytest.raises(ConnectionFailed, match=r"\.ssh/config: cannot be read: Is a directory"):
        find_endpoint(Address("board"))


def test_an_agents_socket_is_taken_from_the_configuration(no_devices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_AGENT", "/run/mine")
    (no_devices / ".ssh").mkdir()
    config = no_devices / ".ssh" / "config"
    for value, agent in (("none", ""), ("~/agent", f"{no_devices}/agent"), ("$MY_AGENT", "/run/mine")):
        config.write_text(f"IdentityAgent {value}\n")
        assert find_endpoint(Address("board")).agent == agent
    config.write_text("IdentityAgent SSH_AUTH_SOCK\n")
    assert find_endpoint(Address("board")).agent is None


# on a server


def test_included_files_lead_to_the_board(ssh_server: SshServer) -> None:
    """As a team keeps them: ~/.ssh/config includes config.d/*, relative to ~/.ssh."""
    config = ssh_server.home / ".ssh" / "config"
    (config.parent / "config.d").mkdir()
    (config.parent / "config.d" / "lab").write_text(config.read_text())
    config.write_text(f"Include config.d/*\nMatch exec false\nUser nobody\nHost *\nUser {getpass.getuser()}\n")
    assert list_config_hosts() == {"board"}
    with closing(connect(Address("board"))) as link:
        assert link.run(["echo", "on"], timeout_s=20).stdout == b"on\n"


def test_comments_and_quotes_are_read_as_such(ssh_server: SshServer) -> None:
    config = ssh_server.home / ".ssh" / "config"
    spaced = ssh_server.home / "known hosts"
    shutil.move(ssh_server.known_hosts, spaced)
    text = config.read_text().replace(f"Port {ssh_server.port}", f"Port {ssh_server.port} # the lab's")
    config.write_text(f'{text}UserKnownHostsFile "{spaced}" # of the lab\n')
    connect(Address("board")).close()
