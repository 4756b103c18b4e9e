"""A board over SSH, against a real OpenSSH server: connecting, files, measuring, and every way in which it fails."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import paramiko
import pytest
from device_models import CONV, QUICK, ignore, make_model
from ssh_server import SshServer

from edgeprune.core.target import Target
from edgeprune.device.agent.measure import evaluate_model, measure_models, measure_probes
from edgeprune.device.board import ProbeSettings
from edgeprune.device.connect import open_device
from edgeprune.device.ssh import login as ssh_login
from edgeprune.device.ssh.transport import CHUNK, SshTransport, connect
from edgeprune.device.ssh.trust import fetch_host_key, remember_host_key
from edgeprune.device.transports.address import Address
from edgeprune.errors import ConnectionFailed, DeviceError, HostKeyError, RemoteError, RuntimeMissing, UsageError
from edgeprune.exporting.runners import run_file

BOARD = Address("board")
TARGET = Target("rpi4", "a board of the tests")


@pytest.fixture
def link(ssh_server: SshServer) -> Iterator[SshTransport]:
    transport = connect(BOARD)
    yield transport
    transport.close()


def write_file(folder: Path, mebibytes: int) -> Path:
    path = folder / "file"
    path.write_bytes(os.urandom(mebibytes << 20))
    return path


def wait_for_no(folder: Path, pattern: str) -> None:
    """The server notices a lost client a moment later."""
    end = time.monotonic() + 10
    while list(folder.rglob(pattern)):
        assert time.monotonic() < end, list(folder.rglob(pattern))
        time.sleep(0.05)


# what works


def test_arguments_reach_the_board_as_they_are(link: SshTransport) -> None:
    hostile = ["a b", "$HOME", "`id`", "'; touch pwned; '", '"', "*", "\\", "", "ü", "-n", "a\nb"]
    lines: list[str] = []
    done = link.run(["printf", "%s|", *hostile], timeout_s=10, on_line=lines.append)
    assert done.stdout.decode() == "".join(f"{one}|" for one in hostile)
    assert "\n".join(lines) == done.stdout.decode()


def test_much_input_output_and_noise_do_not_block(link: SshTransport) -> None:
    script = "wc -c; head -c 9000000 /dev/zero >&2; head -c 9000000 /dev/zero; exit 7"
    done = link.run(["sh", "-c", script], stdin=b"x" * 9_000_000, timeout_s=30)
    assert (done.exit_code, len(done.stderr), done.stdout[:8]) == (7, 9_000_000, b"9000000\n")


def test_a_command_that_wants_no_input_may_end(link: SshTransport) -> None:
    assert link.run(["true"], stdin=b"x" * 9_000_000, timeout_s=30).exit_code == 0


def test_a_file_goes_and_comes_back_whole(link: SshTransport, ssh_server: SshServer, tmp_path: Path) -> None:
    source = write_file(tmp_path, 4)
    remote = "we ird/it's $HOME;x"
    link.put(source, remote)
    place = ssh_server.board / remote
    assert place.stat().st_mode & 0o777 == 0o600
    link.get(remote, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes() == place.read_bytes()
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_a_file_that_is_there_is_not_sent_again(link: SshTransport, ssh_server: SshServer, tmp_path: Path) -> None:
    source = write_file(tmp_path, 1)
    link.put(source, "file")
    node = (ssh_server.board / "file").stat().st_ino
    link.put(source, "file")
    assert (ssh_server.board / "file").stat().st_ino == node
    (ssh_server.board / "file").write_bytes(b"changed")
    link.put(source, "file")
    assert (ssh_server.board / "file").read_bytes() == source.read_bytes()


def test_a_board_is_measured_probed_and_evaluated(ssh_server: SshServer, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="the extra `edgeprune[tflite]` is not installed")
    models = [make_model(tmp_path, "onnxruntime"), make_model(tmp_path, "litert")]
    inputs = np.random.default_rng(1).standard_normal((3, CONV.cin, *CONV.size), dtype=np.float32)
    with open_device(TARGET, "board") as device:
        assert (device.facts.host, device.facts.host_key) == ("board", ssh_server.fingerprint)
        assert device.workspace == str(ssh_server.board / ".cache" / "edgeprune" / "board")
        measured = measure_models(device, models, 1, QUICK, ignore)
        windows = measure_probes(device, models, 1, ProbeSettings(rounds=3, window_s=0.001), ignore)
        outputs = evaluate_model(device, models[0], inputs, ignore)
    assert set(measured) == set(windows) == {model.name for model in models}
    np.testing.assert_array_equal(outputs, run_file(models[0].path, inputs))
    modes = {path.stat().st_mode & 0o777 for path in (ssh_server.board / ".cache").rglob("*")}
    assert modes == {0o600, 0o700}


def test_a_noisy_login_does_not_disturb(ssh_server: SshServer, tmp_path: Path) -> None:
    ssh_server.stop()
    ssh_server.prelude = "echo Welcome to the lab; "
    ssh_server.start()
    with open_device(TARGET, "board") as device:
        assert measure_models(device, [make_model(tmp_path, "onnxruntime")], 1, QUICK, ignore)


def test_a_jump_host_leads_to_the_board(ssh_server: SshServer) -> None:
    more = f"Host inner\nHostName 127.0.0.1\nPort {ssh_server.port}\nProxyJump board\nUser {getpass.getuser()}\n"
    ssh_server.write_client_config(f"{more}IdentityFile {ssh_server.home}/.ssh/key\n")
    transport = connect(Address("inner"))
    assert transport.run(["echo", "through"], timeout_s=10).stdout == b"through\n"
    transport.close()


# who is let in, and whom we trust


def test_jumps_in_a_circle_are_told(ssh_server: SshServer) -> None:
    ssh_server.write_client_config("Host a\nProxyJump b\nHost b\nProxyJump a\n")
    with pytest.raises(ConnectionFailed, match="ProxyJump goes in a circle: a -> b -> a"):
        connect(Address("a"))


def test_a_proxy_command_is_refused_rather_than_ignored(ssh_server: SshServer) -> None:
    ssh_server.write_client_config("Host a\nProxyCommand nc %h %p\n")
    with pytest.raises(ConnectionFailed, match="Host a: ProxyCommand is not supported; use ProxyJump"):
        connect(Address("a"))


def test_an_unknown_host_key_is_refused_until_it_is_trusted(ssh_server: SshServer) -> None:
    ssh_server.known_hosts.unlink()
    with pytest.raises(HostKeyError) as caught:
        connect(BOARD)
    for part in ("unknown host key ssh-ed25519", ssh_server.fingerprint, "edgeprune devices trust board"):
        assert part in str(caught.value)
    key = fetch_host_key("board")
    assert key.fingerprint == ssh_server.fingerprint
    assert remember_host_key(key) == remember_host_key(key) == ssh_server.known_hosts
    assert len(ssh_server.known_hosts.read_text().splitlines()) == 1
    assert ssh_server.known_hosts.stat().st_mode & 0o777 == 0o600
    connect(BOARD).close()


def test_trust_is_added_below_a_last_line_without_an_end(ssh_server: SshServer) -> None:
    other = ssh_server.known_hosts.read_text().replace(str(ssh_server.port), "1").strip()
    ssh_server.known_hosts.write_text(other)
    remember_host_key(fetch_host_key("board"))
    assert ssh_server.known_hosts.read_text().splitlines()[0] == other
    connect(BOARD).close()


def test_a_changed_host_key_is_told_and_not_overwritten(ssh_server: SshServer) -> None:
    old, known = ssh_server.fingerprint, ssh_server.known_hosts.read_text()
    ssh_server.stop()
    ssh_server.make_key(ssh_server.folder / "host_key")
    ssh_server.start()
    with pytest.raises(HostKeyError, match="THE HOST KEY HAS CHANGED") as caught:
        connect(BOARD)
    for part in (old, ssh_server.fingerprint, f"ssh-keygen -R '[127.0.0.1]:{ssh_server.port}'"):
        assert part in str(caught.value)
    with pytest.raises(HostKeyError, match="has another ssh-ed25519 key"):
        remember_host_key(fetch_host_key("board"))
    assert ssh_server.known_hosts.read_text() == known


def test_of_several_known_keys_that_have_all_changed_the_first_is_told(ssh_server: SshServer) -> None:
    old, known = ssh_server.fingerprint, ssh_server.known_hosts.read_text().strip()
    ssh_server.stop()
    ssh_server.make_key(ssh_server.folder / "host_key")
    ssh_server.start()
    ssh_server.known_hosts.write_text(f"{known}\n{known}\n")
    with pytest.raises(HostKeyError, match="THE HOST KEY HAS CHANGED") as caught:
        connect(BOARD)
    assert old in str(caught.value)
    assert "known_hosts:1" in str(caught.value)


def test_host_key_checks_cannot_be_switched_off(ssh_server: SshServer) -> None:
    ssh_server.known_hosts.unlink()
    config = ssh_server.home / ".ssh" / "config"
    config.write_text(f"StrictHostKeyChecking no\n{config.read_text()}")
    with pytest.raises(HostKeyError, match="unknown host key"):
        connect(BOARD)


def test_this_machine_is_not_trusted_as_a_board(no_devices: Path) -> None:
    with pytest.raises(UsageError, match="has no host key to trust"):
        fetch_host_key("local")


def test_a_wrong_key_names_the_user_and_the_keys_tried(ssh_server: SshServer) -> None:
    ssh_server.make_key(ssh_server.home / ".ssh" / "key")
    with pytest.raises(ConnectionFailed) as caught:
        connect(BOARD)
    for part in (f"permission denied for user {getpass.getuser()}", ".ssh/key", "ssh-copy-id board"):
        assert part in str(caught.value)


def test_an_encrypted_key_without_an_agent_is_told(ssh_server: SshServer) -> None:
    key = ssh_server.home / ".ssh" / "key"
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", key], check=True, capture_output=True)
    with pytest.raises(ConnectionFailed, match="a key is encrypted; add it to your agent: ssh-add"):
        connect(BOARD)


def test_no_key_at_all_is_told(ssh_server: SshServer) -> None:
    (ssh_server.home / ".ssh" / "key").unlink()
    with pytest.raises(ConnectionFailed, match=r"permission denied|no SSH session"):
        connect(BOARD)


# unreachable


def test_a_refused_connection_is_told(ssh_server: SshServer) -> None:
    ssh_server.stop()
    with pytest.raises(ConnectionFailed, match=r"board \(127\.0\.0\.1, port \d+\): refused"):
        connect(BOARD)


def test_a_name_that_does_not_exist_is_told(no_devices: Path) -> None:
    with pytest.raises(ConnectionFailed, match="no such host name"):
        connect(Address("no-such-board.invalid"))


def test_a_server_that_says_nothing_is_given_up(no_devices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_login, "CONNECT_S", 0.5)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        with pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1:\d+: no SSH session"):
            connect(Address("127.0.0.1", None, mute.getsockname()[1]))


def test_a_server_that_is_no_ssh_server_is_told(no_devices: Path) -> None:
    with socket.socket() as web:
        web.bind(("127.0.0.1", 0))
        web.listen()
        answer = threading.Thread(target=_answer, args=(web,))
        answer.start()
        with pytest.raises(ConnectionFailed, match="no SSH session"):
            connect(Address("127.0.0.1", None, web.getsockname()[1]))
        answer.join()


def _answer(web: socket.socket) -> None:
    client, _ = web.accept()
    with client:
        client.sendall(b"HTTP/1.0 400 Bad Request\r\n" * 500)


def test_a_config_that_cannot_be_read_is_told(no_devices: Path) -> None:
    (no_devices / ".ssh").mkdir()
    (no_devices / ".ssh" / "config").write_text("Host board\n  Port twenty-two\n")
    with pytest.raises(ConnectionFailed, match=r"\.ssh/config: Host board: .*twenty-two"):
        connect(BOARD)
    (no_devices / ".ssh" / "config").write_text("Match colour red\n")
    with pytest.raises(ConnectionFailed, match=r"\.ssh/config"):
        connect(BOARD)


# lost on the way


def test_a_silent_command_is_given_up(link: SshTransport) -> None:
    with pytest.raises(ConnectionFailed, match="board: no sign of life for 1 s"):
        link.run(["sleep", "600"], timeout_s=1)
    with pytest.raises(ConnectionFailed, match="board: "):
        link.run(["true"], timeout_s=1)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["cut", "frozen"])
def test_a_link_lost_in_mid_command_is_told_in_time(
    link: SshTransport, ssh_server: SshServer, number: signal.Signals
) -> None:
    begun = time.monotonic()
    with pytest.raises(ConnectionFailed, match=r"board: (the connection was lost|no sign of life for 2 s)"):
        link.run(
            ["sh", "-c", "echo on; sleep 600"],
            timeout_s=2,
            on_line=lambda line: ssh_server.signal_sessions(number),
        )
    assert time.monotonic() - begun < 20


def test_an_upload_that_is_cut_leaves_nothing_half_written(
    link: SshTransport, ssh_server: SshServer, tmp_path: Path
) -> None:
    source = write_file(tmp_path, 8)
    (ssh_server.board / "file").write_bytes(b"the last one")
    send, sent = paramiko.Channel.send, 0

    def send_and_cut(channel: paramiko.Channel, content: bytes) -> int:
        nonlocal sent
        if sent > 4 << 20:
            ssh_server.signal_sessions(signal.SIGKILL)
        sent += len(content)
        return send(channel, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paramiko.Channel, "send", send_and_cut)
        with pytest.raises(ConnectionFailed, match="the connection was lost"):
            link.put(source, "file")
    assert (ssh_server.board / "file").read_bytes() == b"the last one"
    again = connect(BOARD)
    again.put(source, "file")
    again.close()
    assert (ssh_server.board / "file").read_bytes() == source.read_bytes()


def test_an_upload_whose_client_goes_away_is_cleaned_up(
    link: SshTransport, ssh_server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_file(tmp_path, 8)
    send, sent = paramiko.Channel.send, 0

    def send_and_leave(channel: paramiko.Channel, content: bytes) -> int:
        nonlocal sent
        if sent > 4 << 20:
            link.close()
        sent += len(content)
        return send(channel, content)

    monkeypatch.setattr(paramiko.Channel, "send", send_and_leave)
    with pytest.raises(ConnectionFailed, match="the connection was lost"):
        link.put(source, "file")
    wait_for_no(ssh_server.board, "file*")


def test_an_upload_damaged_on_the_way_is_refused(
    link: SshTransport, ssh_server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_file(tmp_path, 1)
    send = paramiko.Channel.send

    def damage(channel: paramiko.Channel, content: bytes) -> int:
        """What fills a packet is a part of the file, in its second half at least."""
        half = CHUNK // 2
        return send(channel, content[:half] + bytes(half // 2) if len(content) == CHUNK else content)

    monkeypatch.setattr(paramiko.Channel, "send", damage)
    with pytest.raises(DeviceError, match="file was damaged on the way; run the same command again"):
        link.put(source, "file")
    assert not list(ssh_server.board.glob("file*"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["cut", "frozen"])
def test_a_measurement_whose_link_is_lost_can_be_run_again(
    ssh_server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    model = make_model(tmp_path, "onnxruntime")
    with monkeypatch.context() as patch, open_device(TARGET, "board") as device:
        patch.setattr("edgeprune.device.agent.client.SILENCE_S", 2.0)
        with pytest.raises(ConnectionFailed, match="board: "):
            measure_models(device, [model], 1, QUICK, lambda text: ssh_server.signal_sessions(number))
    with open_device(TARGET, "board") as device:
        assert measure_models(device, [model], 1, QUICK, ignore)[model.name].samples_ms


def test_an_agent_that_is_killed_is_told(ssh_server: SshServer, tmp_path: Path) -> None:
    def kill_agent(text: str) -> None:
        for pid in ssh_server.sessions():
            with suppress(OSError):
                if b"agent-" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)

    with open_device(TARGET, "board") as device, pytest.raises(RemoteError, match="the agent was killed"):
        measure_models(device, [make_model(tmp_path, "onnxruntime")], 1, QUICK, kill_agent)


# what the board lacks


def test_a_full_disk_is_told_with_its_space(ssh_server: SshServer, tmp_path: Path) -> None:
    small = ssh_server.board / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(small)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("needs root, to mount a small disk")
    transport = connect(BOARD)
    try:
        with pytest.raises(DeviceError, match=r"no space for small/file: it needs 4\.0 MiB, 2\.0 MiB are free"):
            transport.put(write_file(tmp_path, 4), "small/file")
        _fill_while_writing(transport, write_file(tmp_path, 4))
        assert list(small.iterdir()) == []
    finally:
        transport.close()
        subprocess.run(["umount", "-l", small], check=True)


def _fill_while_writing(transport: SshTransport, source: Path) -> None:
    """The disk looked large enough, but fills up under the upload."""
    looked = transport._check
    transport._check = lambda remote: (looked(remote)[0], 1 << 40)  # type: ignore[method-assign]
    with pytest.raises(DeviceError, match=r"small/file cannot be written: .*No space left on device"):
        transport.put(source, "small/file")


def test_a_place_that_cannot_be_written_is_told(link: SshTransport, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="board: /proc/no/file cannot be written"):
        link.put(write_file(tmp_path, 1), "/proc/no/file")
    with pytest.raises(DeviceError, match=r"board: /no/file cannot be read: .*No such file"):
        link.get("/no/file", tmp_path / "back")


def test_a_missing_runtime_names_the_command_that_installs_it(ssh_server: SshServer, tmp_path: Path) -> None:
    bare = str(Path(sys.base_prefix) / "bin" / "python3")
    with open_device(replace(TARGET, python=bare), "board") as device:
        if device.runtime_version("onnxruntime"):
            pytest.skip("this machine's own Python has onnxruntime")
        said = r"board: onnxruntime is not installed .*edgeprune devices setup --target rpi4 --host board"
        with pytest.raises(RuntimeMissing, match=said):
            measure_models(device, [make_model(tmp_path, "onnxruntime")], 1, QUICK, ignore)


def test_a_runtime_that_does_not_load_is_told(ssh_server: SshServer, tmp_path: Path) -> None:
    """As on a board whose C library is too old for the wheel."""
    place = ssh_server.board / ".local" / "share" / "edgeprune" / "venv"
    place.unlink()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "onnxruntime.py").write_text("raise ImportError('GLIBC_2.38 not found')")
    (packages / "numpy.py").touch()
    (packages / "onnxruntime-1.0.dist-info").mkdir()
    (packages / "onnxruntime-1.0.dist-info" / "METADATA").write_text("Name: onnxruntime\nVersion: 1.0\n")
    with open_device(TARGET, "board") as device:
        assert device.facts.runtimes == {"onnxruntime": "1.0"}
        with pytest.raises(RuntimeMissing, match=r"onnxruntime is installed but does not load: GLIBC_2\.38 not found"):
            measure_models(device, [make_model(tmp_path, "onnxruntime")], 1, QUICK, ignore)


def test_a_board_without_python_is_told(ssh_server: SshServer) -> None:
    ssh_server.stop()
    empty = ssh_server.folder / "bin"
    empty.mkdir()
    for tool in ("sh", "mkdir"):
        (empty / tool).symlink_to(shutil.which(tool) or "")
    (ssh_server.board / ".local" / "share" / "edgeprune" / "venv").unlink()
    ssh_server.prelude = f"PATH='{empty}'; "
    ssh_server.start()
    with pytest.raises(DeviceError, match=r"board: no Python there .*install python3"), open_device(TARGET, "board"):
        pass


def test_a_home_that_cannot_be_written_is_told(ssh_server: SshServer) -> None:
    (ssh_server.board / ".cache").write_text("a file, not a folder")
    with (
        pytest.raises(
            DeviceError, match=r"board: \.cache/edgeprune/board cannot be written: .*(File exists|Not a directory)"
        ),
        open_device(TARGET, "board"),
    ):
        pass


def test_a_key_is_remembered_where_nothing_was_known_before(ssh_server: SshServer, tmp_path: Path) -> None:
    key = replace(fetch_host_key("board"), file=tmp_path / "new" / ".ssh" / "known_hosts")
    assert remember_host_key(key) == key.file
    assert key.file.read_text() == f"{key.host} {key.kind} {key.base64}\n"
    assert (key.file.stat().st_mode & 0o777, key.file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
