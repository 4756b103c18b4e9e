"""Keys in files and agents, servers that are strict about tries and sessions: let in, or told what to do."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from device_models import QUICK, ignore, make_model
from ssh_server import SshServer, why_not

from edgeprune.core.target import Target
from edgeprune.device import lease
from edgeprune.device.agent.measure import measure_models
from edgeprune.device.connect import open_device
from edgeprune.device.ssh.keys import parse_private, parse_public, read_key_file
from edgeprune.device.ssh.transport import SshTransport, connect
from edgeprune.device.transports.address import Address
from edgeprune.errors import ConnectionFailed, DeviceError

if why_not():
    pytest.skip(why_not(), allow_module_level=True)

BOARD = Address("board")
TARGET = Target("rpi4", "a board of the tests")


@pytest.fixture
def ssh_agent(ssh_server: SshServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A real agent without keys; its socket."""
    path = ssh_server.home / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL) as agent:
        end = time.monotonic() + 20
        while not path.exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        yield path
        agent.terminate()


def add_to_agent(key: Path) -> None:
    subprocess.run(["ssh-add", "-q", key], check=True, capture_output=True)


def encrypt(key: Path, form: str = "") -> None:
    command = ["ssh-keygen", "-q", "-p", "-N", "secret", *(["-m", form] if form else []), "-f", key]
    subprocess.run(command, check=True, capture_output=True)


def get_in() -> str:
    with closing(connect(BOARD)) as link:
        return link.run(["echo", "in"], timeout_s=20).stdout.decode()


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
@pytest.mark.parametrize("form", ["", "PEM"])
def test_an_encrypted_key_serves_from_the_agent(ssh_server: SshServer, ssh_agent: Path, kind: str, form: str) -> None:
    """With IdentitiesOnly yes, as the configuration of the server's tests has it: the agent's key is the named one."""
    key = ssh_server.home / ".ssh" / "key"
    for old in (key, key.with_name("key.pub")):
        old.unlink()
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", key], check=True)
    (ssh_server.folder / "authorized_keys").write_bytes(key.with_name("key.pub").read_bytes())
    add_to_agent(key)
    if kind != "ed25519" or not form:  # there is no PEM of an ed25519 key
        encrypt(key, form)
    assert get_in() == "in\n"
    if not form:
        key.with_name("key.pub").unlink()  # OpenSSH's own format tells the public half without its passphrase
        assert get_in() == "in\n"


def test_a_public_key_names_one_in_the_agent(ssh_server: SshServer, ssh_agent: Path) -> None:
    key = ssh_server.home / ".ssh" / "key"
    add_to_agent(key)
    key.unlink()
    config = ssh_server.home / ".ssh" / "config"
    config.write_text(config.read_text().replace(str(key), f"{key}.pub"))
    assert get_in() == "in\n"
    subprocess.run(["ssh-add", "-q", "-D"], check=True, capture_output=True)
    with pytest.raises(ConnectionFailed, match=r"not offered: .*key\.pub \(a public key whose private one is not in"):
        get_in()


def test_the_right_one_of_many_keys_is_offered_first(ssh_server: SshServer, ssh_agent: Path) -> None:
    """Ten others in the agent, and a server that allows two tries."""
    for number in range(10):
        other = ssh_server.home / f"other{number}"
        ssh_server.make_key(other)
        add_to_agent(other)
    add_to_agent(ssh_server.home / ".ssh" / "key")
    ssh_server.restart(more="MaxAuthTries 2")
    assert get_in() == "in\n"
    config = ssh_server.home / ".ssh" / "config"
    named = config.read_text()
    lines = [line for line in named.splitlines() if not line.startswith("Identit")]
    config.write_text("\n".join(lines) + "\n")
    with pytest.raises(
        ConnectionFailed, match=r"hung up at the [23]\. key .*IdentityFile\) and add IdentitiesOnly yes"
    ):
        get_in()
    config.write_text(named)
    assert get_in() == "in\n"


def test_a_missing_identity_file_is_named(ssh_server: SshServer) -> None:
    config = ssh_server.home / ".ssh" / "config"
    config.write_text(config.read_text().replace("/.ssh/key", "/.ssh/kye"))
    with pytest.raises(ConnectionFailed) as caught:
        get_in()
    assert "tried no key, as there is none; not offered: " in str(caught.value)
    assert ".ssh/kye (there is no such file)" in str(caught.value)


def test_a_key_that_is_none_is_named(ssh_server: SshServer) -> None:
    (ssh_server.home / ".ssh" / "key").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n")
    (ssh_server.home / ".ssh" / "key.pub").unlink()
    with pytest.raises(ConnectionFailed, match=r"not offered: .*\.ssh/key \(not read: "):
        get_in()


def test_a_server_that_takes_no_keys_is_told(ssh_server: SshServer) -> None:
    ssh_server.restart(more="Match all\nPubkeyAuthentication no\nPasswordAuthentication yes")
    with pytest.raises(ConnectionFailed, match=r"SSH server wants password of user .*PubkeyAuthentication yes"):
        get_in()


def test_a_certificate_beside_its_key_is_offered(ssh_server: SshServer) -> None:
    authority = ssh_server.folder / "authority"
    ssh_server.make_key(authority)
    public = ssh_server.home / ".ssh" / "key.pub"
    subprocess.run(
        ["ssh-keygen", "-q", "-s", authority, "-I", "tests", "-n", getpass.getuser(), public],
        check=True, capture_output=True,
    )  # fmt: skip
    (ssh_server.folder / "authorized_keys").write_text(f"cert-authority {authority.with_suffix('.pub').read_text()}")
    assert get_in() == "in\n"


def test_halves_of_keys_are_read_without_a_passphrase(tmp_path: Path) -> None:
    for kind in ("ed25519", "rsa", "ecdsa"):
        key = tmp_path / kind
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "secret", "-f", key], check=True)
        public = parse_public(key.with_suffix(".pub").read_bytes())
        assert public == parse_private(key.read_bytes()) == read_key_file(key, True).public != b""
    for content in (b"", b"ssh-rsa", b"ssh-rsa AAAA", b"x y z", b"-----BEGIN OPENSSH PRIVATE KEY-----AAAA"):
        assert parse_public(content) == parse_private(content) == b""


# sessions


def test_a_server_that_allows_one_session_is_measured_while_the_lease_is_renewed(
    ssh_server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh_server.restart(more="MaxSessions 1")
    monkeypatch.setattr(lease, "RENEW_S", 0.05)
    with open_device(TARGET, "board") as device:
        for _ in range(2):
            assert measure_models(device, [make_model(tmp_path, "onnxruntime")], 1, QUICK, ignore)


def run_beside(link: SshTransport, script: str) -> tuple[threading.Thread, list[bytes]]:
    """Another command, once it runs on the same connection; and what it prints."""
    said: list[bytes] = []
    thread = threading.Thread(target=lambda: said.append(link.run(["sh", "-c", script], timeout_s=20).stdout))
    thread.start()
    end = time.monotonic() + 20
    while not link._running:
        assert time.monotonic() < end
        time.sleep(0.01)
    return thread, said


def test_a_second_command_at_a_time_gets_a_connection_of_its_own(ssh_server: SshServer) -> None:
    ssh_server.restart(more="MaxSessions 1")
    os.mkfifo(ssh_server.board / "pipe")
    with closing(connect(BOARD)) as link:
        longer, said = run_beside(link, "cat pipe")
        assert link.run(["echo", "beside"], timeout_s=20).stdout == b"beside\n"
        link.run(["sh", "-c", "echo through > pipe"], timeout_s=20)
        longer.join()
        assert said == [b"through\n"]


def test_a_server_that_opens_no_session_is_told(ssh_server: SshServer) -> None:
    ssh_server.restart(more="MaxSessions 0")
    with (
        closing(connect(BOARD)) as link,
        pytest.raises(DeviceError, match=r"opens no session.*MaxSessions to 1 or more"),
    ):
        link.run(["true"], timeout_s=20)


def test_a_silent_command_beside_another_is_given_up_alone(ssh_server: SshServer) -> None:
    with closing(connect(BOARD)) as link:
        ticks, said = run_beside(link, "for i in 1 2 3 4 5 6; do echo $i; sleep 1; done")
        with pytest.raises(ConnectionFailed, match="no sign of life for 1 s"):
            link.run(["sleep", "600"], timeout_s=1)
        ticks.join()
        assert said == [b"1\n2\n3\n4\n5\n6\n"]
        assert link.run(["echo", "on"], timeout_s=20).stdout == b"on\n"


# whoever takes the lines


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), ValueError("I/O on closed file"), EOFError()])
def test_a_failure_of_ours_is_not_one_of_the_link(ssh_server: SshServer, error: Exception) -> None:
    def take(line: str) -> None:
        raise error

    with closing(connect(BOARD)) as link:
        with pytest.raises(type(error)) as caught:
            link.run(["echo", "line"], timeout_s=20, on_line=take)
        assert caught.value is error
        assert link.run(["echo", "on"], timeout_s=20).stdout == b"on\n"


@pytest.mark.parametrize("stream", ["a closed pipe", "a full disk"])
def test_a_standard_error_that_takes_nothing_does_not_end_a_command(
    ssh_server: SshServer, tmp_path: Path, stream: str
) -> None:
    """As with `2>&1 | head`: what is shown on the way is lost, and the figures are not."""
    code = "import sys; from edgeprune.cli import main; main(sys.argv[1:])"
    model = make_model(tmp_path, "onnxruntime").path
    words = [sys.executable, "-c", code, "measure", str(model), "--target", "tests/support/targets/quick.toml"]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with Path("/dev/full").open("w") as full:
            taker = writing if stream == "a closed pipe" else full
            done = subprocess.run([*words, "--host", "board"], stdout=subprocess.PIPE, stderr=taker, check=False)
    finally:
        os.close(writing)
    assert b"p50" in done.stdout
    assert done.returncode in (0, 4)
