"""known_hosts as OpenSSH reads it, line by line: held against the real ssh-keygen and ssh over random files."""

from __future__ import annotations

import base64
import hashlib
import hmac
import subprocess
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ssh_server import SshServer, why_not

from edgeprune.device.ssh.known_hosts import (
    CHANGED,
    KNOWN,
    UNKNOWN,
    WITHDRAWN,
    KnownKeys,
    find_known,
    judge_key,
    known_name,
    parse_line,
)
from edgeprune.device.ssh.transport import connect
from edgeprune.device.ssh.trust import fetch_host_key, remember_host_key
from edgeprune.device.transports.address import Address
from edgeprune.errors import HostKeyError

if why_not():
    pytest.skip(why_not(), allow_module_level=True)

RSA = base64.b64encode(b"\0\0\0\x07ssh-rsa\0\0\0\x03\x01\0\x01\0\0\x01\x01\0" + b"\xff" * 256).decode()
"""As large as one must be."""


@cache
def make_key(number: int) -> str:
    """`ssh-ed25519 AAAA...`, the same for a number."""
    blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + hashlib.sha256(b"%d" % number).digest()
    return f"ssh-ed25519 {base64.b64encode(blob).decode()}"


def blob_of(key: str) -> bytes:
    return base64.b64decode(key.split()[1])


def hash_name(name: str, salt: bytes = b"a salt of 20 bytes..") -> str:
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


NAMES = ["board", "board.lan", "10.0.0.7", "[board]:2222", "[10.0.0.7]:2222", "BOARD", "other"]
PATTERNS = ["*", "b*", "?oard", "!board", "!b*", "*.lan", "10.0.0.*", "[*]:2222", "[board]:*", "B*", "a[b]", "", *NAMES]
patterns = st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3).map(",".join)
hosts = patterns | st.sampled_from(NAMES).map(hash_name)
keys = st.integers(0, 3).map(make_key) | st.sampled_from(
    [
        f"ssh-rsa {RSA}",
        "ssh-ed25519 AAAA",
        "ssh-ed25519 !!!",
        "ssh-unheard AAAAC3NzaC1lZDI1NTE5",
        f"ssh-rsa {make_key(0).split()[1]}",
        "2048 65537 12345",
    ]
)
markers = st.sampled_from(["", "", "", "", "@revoked ", "@cert-authority ", "@unheard ", "@"])
ends = st.sampled_from(["", " a comment", " \t", "\r", " # no comment"])
spaces = st.sampled_from([" ", "\t", "  "])
whole_lines = st.tuples(st.sampled_from(["", " ", "\t"]), markers, hosts, spaces, keys, ends)
lines = whole_lines.map("".join).map(str.encode) | st.sampled_from(
    [b"", b"# board ssh-ed25519", b"\xff\xfe board", "bo\u00e4rd ".encode("latin-1") + make_key(1).encode()]
)
files = st.lists(lines, max_size=6).map(b"\n".join)


def numbers_of(known: KnownKeys) -> list[int]:
    found = (*known.keys, *known.authorities, *known.revoked)
    return sorted(int(line.where.rpartition(":")[2]) for line in found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("known")


@settings(max_examples=150)
@given(content=files, name=st.sampled_from([name for name in NAMES if name == name.lower()]))
@example(content=b"@revoked * " + make_key(1).encode(), name="board")
@example(content=b"!board,* " + make_key(1).encode() + b"\n*,!board " + make_key(1).encode(), name="board")
def test_the_lines_of_a_host_are_those_that_ssh_keygen_finds(folder: Path, content: bytes, name: str) -> None:
    file = folder / "known_hosts"
    file.write_bytes(content)
    done = subprocess.run(["ssh-keygen", "-l", "-F", name, "-f", file], capture_output=True, check=False)
    theirs = [int(line.split(b"line ")[1].split()[0]) for line in done.stdout.split(b"\n") if b" found: line " in line]
    assert numbers_of(find_known(name, [file])) == theirs


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    running = SshServer(tmp_path_factory.mktemp("server") / "ssh")
    running.start()
    yield running
    running.stop()


def server_lines(server: SshServer) -> st.SearchStrategy[list[str]]:
    own = " ".join((server.folder / "host_key.pub").read_text().split()[:2])
    names = ["127.0.0.1", known_name("127.0.0.1", server.port), "127.0.0.*", "*", "!127.0.0.1,*", f"[*]:{server.port}"]
    hashed = [hash_name(name) for name in names[:2]]
    some = st.sampled_from([*names, *hashed, "other"])
    marker = st.sampled_from(["", "", "", "@revoked ", "@cert-authority "])
    key = st.sampled_from([own, own, make_key(1), f"ssh-rsa {RSA}", "ssh-unheard AAAA"])
    return st.lists(st.tuples(marker, some, st.just(" "), key).map("".join), max_size=3)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_server_is_let_through_where_ssh_lets_it_through(server: SshServer, data: st.DataObject) -> None:
    text = data.draw(server_lines(server))
    server.known_hosts.write_text("\n".join(text))
    options = {
        "UserKnownHostsFile": server.known_hosts, "GlobalKnownHostsFile": "none", "StrictHostKeyChecking": "yes",
        "BatchMode": "yes", "IdentityFile": server.home / ".ssh" / "key", "IdentitiesOnly": "yes",
        "UpdateHostKeys": "no",
    }  # fmt: skip
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    done = subprocess.run(
        ["ssh", "-F", "none", *words, "-p", str(server.port), "127.0.0.1", "true"], capture_output=True, check=False
    )
    blob = blob_of((server.folder / "host_key.pub").read_text())
    ours = judge_key(find_known(known_name("127.0.0.1", server.port), [server.known_hosts]), blob)
    assert (done.returncode == 0) == (ours == KNOWN), (text, ours, done.stderr.decode())


def test_a_key_is_judged_by_its_own_kind() -> None:
    one, other = blob_of(make_key(1)), blob_of(make_key(2))
    line, rsa = parse_line(f"board {make_key(1)}"), parse_line(f"board ssh-rsa {RSA}")
    revoked = parse_line(f"@revoked * {make_key(1)}")
    assert line is not None
    assert rsa is not None
    assert revoked is not None
    assert judge_key(KnownKeys((line,)), one) == KNOWN
    assert judge_key(KnownKeys((line,)), other) == CHANGED
    assert judge_key(KnownKeys((rsa,)), one) == UNKNOWN
    assert judge_key(KnownKeys((line,), revoked=(revoked,)), one) == WITHDRAWN
    assert judge_key(KnownKeys(portless=(line,)), one) == KNOWN
    assert judge_key(KnownKeys(portless=(line,)), other) == UNKNOWN


def test_a_key_of_the_host_does_not_serve_against_one_of_its_port() -> None:
    with_port, without = parse_line(f"[board]:2222 {make_key(2)}"), parse_line(f"board {make_key(1)}")
    assert with_port is not None
    assert without is not None
    assert judge_key(KnownKeys((with_port,), (without,)), blob_of(make_key(1))) == CHANGED


@given(st.binary(max_size=60))
def test_no_line_is_a_traceback(line: bytes) -> None:
    found = parse_line(line.decode("utf-8", "surrogateescape"))
    assert found is None or found.blob


# over SSH


def test_lines_of_other_hosts_that_nobody_reads_do_not_matter(ssh_server: SshServer) -> None:
    own = ssh_server.known_hosts.read_bytes()
    odd = [
        b"@cert-authority *.lan " + make_key(1).encode(), b"@revoked other " + make_key(2).encode(),
        b"other ssh-unheard AAAA", b"other ssh-ed25519 not!base64", b"\xff\xfe\x00", b"other 2048 65537 123", b"other",
    ]  # fmt: skip
    ssh_server.known_hosts.write_bytes(b"\n".join([*odd, own.strip(), *odd]))
    connect(Address("board")).close()
    remember_host_key(fetch_host_key("board"))
    assert len(ssh_server.known_hosts.read_bytes().split(b"\n")) == 2 * len(odd) + 1


def test_a_revoked_key_is_refused_with_its_line(ssh_server: SshServer) -> None:
    key = (ssh_server.folder / "host_key.pub").read_text()
    own = ssh_server.known_hosts.read_text().strip()
    ssh_server.known_hosts.write_text(f"{own}\n@revoked * {key}")
    with pytest.raises(HostKeyError, match=r"THE HOST KEY WAS WITHDRAWN: .*@revoked by .*known_hosts:2"):
        connect(Address("board"))
    ssh_server.known_hosts.write_text(f"@revoked * {key}")
    with pytest.raises(HostKeyError, match="@revoked"):
        remember_host_key(fetch_host_key("board"))


def test_an_authority_is_named_where_its_certificates_would_be_needed(ssh_server: SshServer) -> None:
    ssh_server.known_hosts.write_text(f"@cert-authority * {make_key(1)}\n")
    with pytest.raises(
        HostKeyError, match=r"unknown host key ssh-ed25519 .*known_hosts:1 has an authority, .*devices trust board"
    ):
        connect(Address("board"))
    remember_host_key(fetch_host_key("board"))
    connect(Address("board")).close()


def test_patterns_and_several_files_are_honoured(ssh_server: SshServer) -> None:
    key = (ssh_server.folder / "host_key.pub").read_text()
    second = ssh_server.home / "second one"
    second.write_text(f"[127.0.0.*]:*,!other {key}")
    ssh_server.known_hosts.unlink()
    ssh_server.write_client_config(f'Host *\nUserKnownHostsFile "{ssh_server.known_hosts}" "{second}" # both\n')
    with closing(connect(Address("board"))) as link:
        assert link.host_key == ssh_server.fingerprint
    ssh_server.write_client_config(f"Host *\nUserKnownHostsFile none\nGlobalKnownHostsFile '{second}'\n")
    connect(Address("board")).close()
