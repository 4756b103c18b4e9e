"""Connecting over SSH: the way there, the host key, and the keys that are offered.

This and ssh.py are the only modules that import paramiko; whatever it raises is translated here. Host keys are always
checked strictly. Every wait has an end.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.device.ssh.config import config_path
from edgeprune.device.ssh.keys import KeyFile, list_key_files
from edgeprune.device.ssh.known_hosts import CHANGED, KNOWN, WITHDRAWN, KnownKeys, find_known, judge_key
from edgeprune.device.transports.address import Address, parse_address
from edgeprune.device.transports.endpoint import Endpoint, find_endpoint
from edgeprune.errors import ConnectionFailed, HostKeyError
from edgeprune.extras import comes_with

with comes_with("ssh"):
    import paramiko
    from paramiko.agent import AgentSSH

CONNECT_S = 10.0
AGENT_S = 60.0
"""An agent may ask its user."""
KEEPALIVE_S = 15
MOST_JUMPS = 8


@dataclass(frozen=True)
class HostKey:
    """A host key as a server shows it. `host` is what known_hosts calls it, `file` where it would be written."""

    host: str
    kind: str
    base64: str
    fingerprint: str
    file: Path


def connect_chain(endpoint: Endpoint, inner: Sequence[str] = ()) -> list[paramiko.Transport]:
    """Connections, logged in, to the jumps and last to the endpoint. `inner` are the hosts that this one leads to.

    Raises:
        HostKeyError: a host key is unknown, withdrawn, or not the known one.
        ConnectionFailed: unreachable, refused, no answer in time, or not let in.
    """
    with _open_link(endpoint, inner) as (jumps, link), ExitStack() as undo:
        undo.callback(link.close)
        connection = paramiko.Transport(link)
        undo.callback(connection.close)
        try:
            _log_in(endpoint, connection)
        except (paramiko.SSHException, EOFError, OSError) as exc:
            raise _no_session(endpoint, exc) from exc
        undo.pop_all()
        return [*jumps, connection]


@contextmanager
def _open_link(endpoint: Endpoint, inner: Sequence[str] = ()) -> Iterator[tuple[list[paramiko.Transport], Any]]:
    """A socket to the endpoint, or a channel through its jumps, with the connections that carry it.

    They are closed where the body fails.
    """
    with ExitStack() as undo:
        jumps = _connect_jumps(endpoint, inner) if endpoint.jumps else []
        for jump in jumps:
            undo.callback(jump.close)
        yield jumps, _open_channel(endpoint, jumps[-1]) if jumps else _open_socket(endpoint)
        undo.pop_all()


def _connect_jumps(endpoint: Endpoint, inner: Sequence[str]) -> list[paramiko.Transport]:
    if len(inner) >= MOST_JUMPS or endpoint.label in inner:
        raise ConnectionFailed(f"{endpoint.label}: ProxyJump goes in a circle: {' -> '.join((*inner, endpoint.label))}")
    *before, last = endpoint.jumps
    jump = find_endpoint(parse_address(last, "ProxyJump"), tuple(before) or None)
    return connect_chain(jump, [*inner, endpoint.label])


def _open_channel(endpoint: Endpoint, carrier: paramiko.Transport) -> Any:
    try:
        destination = (endpoint.host, endpoint.port)
        return carrier.open_channel("direct-tcpip", destination, ("127.0.0.1", 0), timeout=CONNECT_S)
    except (paramiko.SSHException, OSError, EOFError) as exc:
        raise ConnectionFailed(f"{endpoint.label}: {endpoint.jumps[-1]} cannot reach it: {exc}") from exc


def _open_socket(endpoint: Endpoint) -> socket.socket:
    where = f"{endpoint.label} ({endpoint.host}, port {endpoint.port})"
    try:
        link = socket.create_connection((endpoint.host, endpoint.port), timeout=CONNECT_S)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else a small packet waits 40 ms for the last one
        return link
    except (socket.gaierror, UnicodeError) as exc:
        raise ConnectionFailed(f"{where}: no such host name; check the address, or add it to {config_path()}") from exc
    except ConnectionRefusedError as exc:
        raise ConnectionFailed(f"{where}: refused; is the SSH server running there, on that port?") from exc
    except TimeoutError as exc:
        raise ConnectionFailed(
            f"{where}: no answer within {CONNECT_S:g} s; is the board on, and in this network?"
        ) from exc
    except OSError as exc:
        raise ConnectionFailed(f"{where}: cannot be reached: {exc.strerror}") from exc


def _no_session(endpoint: Endpoint, exc: BaseException) -> ConnectionFailed:
    """What is said where two machines do not come to speak SSH with each other."""
    reason = str(exc) or "the server hung up"
    if "banner" in reason or "protocol version" in reason:
        reason = (
            f"what listens on port {endpoint.port} of {endpoint.host} gives no greeting of SSH; is that the right port?"
        )
    return ConnectionFailed(f"{endpoint.label}: no SSH session: {reason}")


def _log_in(endpoint: Endpoint, connection: paramiko.Transport) -> None:
    known_keys = find_known(endpoint.known_name, endpoint.known_hosts)
    connection.banner_timeout = connection.handshake_timeout = connection.auth_timeout = CONNECT_S
    kinds = {line.kind for line in (*known_keys.keys, *known_keys.portless)}
    options = connection.get_security_options()
    options.key_types = sorted(options.key_types, key=lambda name: _key_kind(name) not in kinds)
    connection.start_client(timeout=CONNECT_S)
    check_host_key(endpoint, known_keys, connection.get_remote_server_key())
    _offer_keys(endpoint, connection)
    connection.set_keepalive(KEEPALIVE_S)


def _key_kind(algorithm: str) -> str:
    """The kind of key that signs by an algorithm."""
    return "ssh-rsa" if algorithm.startswith("rsa-sha2-") else algorithm


def check_host_key(endpoint: Endpoint, known_keys: KnownKeys, key: paramiko.PKey) -> None:
    """Require that a server shows the key that is known of it.

    Raises:
        HostKeyError: it does not; says how to accept it, or what is wrong.
    """
    verdict = judge_key(known_keys, key.asbytes())
    label, key_text = endpoint.label, f"{key.get_name()} {key.fingerprint}"
    if verdict == WITHDRAWN:
        (line,) = [line for line in known_keys.revoked if line.blob == key.asbytes()][:1]
        raise HostKeyError(
            f"{label}: THE HOST KEY WAS WITHDRAWN: {key_text} is @revoked by {line.where}; give it a new one"
        )
    if verdict == CHANGED:
        (line,) = [line for line in known_keys.keys if line.kind == key.get_name()][:1]
        raise HostKeyError(
            f"{label}: THE HOST KEY HAS CHANGED: known is {_fingerprint(line.kind, line.blob)} ({line.where}), the "
            f"server shows {key.fingerprint}. If the board was set up anew: ssh-keygen -R '{endpoint.known_name}' -f "
            f"{line.where.rpartition(':')[0]}, then edgeprune devices trust {label}; if not, someone may be in between"
        )
    if verdict != KNOWN:
        raise HostKeyError(
            f"{label}: unknown host key {key_text}{_describe_others(known_keys)}. Compare it with what the board shows "
            f"(ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then: edgeprune devices trust {label}"
        )


def _fingerprint(kind: str, blob: bytes) -> str:
    return paramiko.PKey.from_type_string(kind, blob).fingerprint


def _describe_others(known_keys: KnownKeys) -> str:
    """What is known of the host and does not serve."""
    notes = [f"{line.where} has its {line.kind} key" for line in known_keys.keys]
    notes += [f"{line.where} has an authority, whose certificates are not read here" for line in known_keys.authorities]
    notes += [f"{problem}, so it was not read" for problem in known_keys.unreadable]
    return f" ({'; '.join(notes)})" if notes else ""


# the keys that are offered


class _Agent(AgentSSH):
    """What an agent holds that listens at a path."""

    def __init__(self, path: str) -> None:
        super().__init__()
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.settimeout(AGENT_S)
        try:
            link.connect(path)
            self._connect(link)  # type: ignore[attr-defined]
        except BaseException:
            link.close()
            raise

    def close(self) -> None:
        """Let go of it."""
        self._close()  # type: ignore[attr-defined]


@contextmanager
def _agent_keys(endpoint: Endpoint) -> Iterator[list[paramiko.AgentKey]]:
    """What the agent holds; nothing where there is none."""
    path = os.environ.get("SSH_AUTH_SOCK", "") if endpoint.agent is None else endpoint.agent
    with ExitStack() as undo:
        keys: list[paramiko.AgentKey] = []
        if path:
            with suppress(OSError, paramiko.SSHException):
                agent = _Agent(path)
                undo.callback(agent.close)
                keys = list(agent.get_keys())
        yield keys


@dataclass
class _Offers:
    """The keys that were offered, those that could not be, and whether the server takes keys at all."""

    tried: list[str]
    left_out: list[str]
    encrypted: list[Path]


def _offer_keys(endpoint: Endpoint, connection: paramiko.Transport) -> None:
    """Log in by the first key that the server takes.

    Raises:
        ConnectionFailed: it takes none; says which were offered, and what to do.
    """
    offers = _Offers([], [], [])
    with _agent_keys(endpoint) as agent_keys:
        for name, key in _list_keys(endpoint, agent_keys, offers):
            offers.tried.append(name)
            try:
                more = connection.auth_publickey(endpoint.user, key)
            except paramiko.BadAuthenticationType as exc:
                raise _refused_kind(endpoint, exc.allowed_types) from exc
            except (paramiko.SSHException, EOFError, OSError) as exc:
                if connection.is_active():
                    continue
                raise _too_many(endpoint, offers, exc) from exc
            if more:
                raise _refused_kind(endpoint, more)
            return
    raise _not_let_in(endpoint, offers)


def _list_keys(
    endpoint: Endpoint, agent_keys: Sequence[paramiko.AgentKey], offers: _Offers
) -> Iterator[tuple[str, paramiko.PKey]]:
    """The keys to offer, each with its name: those of the configuration, from agent or file, then the others."""
    files = list_key_files(endpoint.keys)
    by_public = {key.blob: key for key in agent_keys}
    configured = [file for file in files if file.named]
    offered: set[bytes] = set()
    for file in (*configured, None, *(file for file in files if not file.named)):
        if file is None:
            for key in agent_keys if not endpoint.identities_only else ():
                if key.blob not in offered:
                    offered.add(key.blob)
                    yield f"agent key {key.fingerprint}", key
        elif file.public and file.public in by_public:
            if file.public not in offered:
                offered.add(file.public)
                yield f"{file.path} (in the agent)", by_public[file.public]
        elif (loaded := _load(file, offers)) is not None:
            yield str(file.path), loaded


def _load(file: KeyFile, offers: _Offers) -> paramiko.PKey | None:
    """A private key from its file; None, and a note in `offers`, where that cannot be."""
    if file.missing or not file.holds_private:
        why = "" if file.missing else " (a public key whose private one is not in the agent)"
        offers.left_out.append(f"{file.describe()}{why}")
        return None
    try:
        return paramiko.PKey.from_path(file.path)
    except TypeError:
        offers.encrypted.append(file.path)
    except OSError as exc:
        offers.left_out.append(f"{file.path} ({exc.strerror})")
    except (paramiko.SSHException, paramiko.pkey.UnknownKeyType, ValueError) as exc:
        why = "of a security key, which only an agent can use" if file.path.name.endswith("_sk") else f"not read: {exc}"
        offers.left_out.append(f"{file.path} ({why[:100]})")
    return None


def _refused_kind(endpoint: Endpoint, allowed: Sequence[str]) -> ConnectionFailed:
    return ConnectionFailed(
        f"{endpoint.label}: its SSH server wants {' or '.join(allowed)} of user {endpoint.user}; edgeprune logs in by "
        "a key alone (there: PubkeyAuthentication yes, and no AuthenticationMethods that want more)"
    )


def _too_many(endpoint: Endpoint, offers: _Offers, exc: BaseException) -> ConnectionFailed:
    return ConnectionFailed(
        f"{endpoint.label}: its SSH server hung up at the {len(offers.tried)}. key that was offered "
        f"({', '.join(offers.tried)}): {str(exc) or 'no more tries'}; it may allow no more (MaxAuthTries): name the "
        f"right one in {config_path()} (IdentityFile) and add IdentitiesOnly yes"
    )


def _not_let_in(endpoint: Endpoint, offers: _Offers) -> ConnectionFailed:
    if offers.encrypted and not offers.tried:
        files = " ".join(map(str, offers.encrypted))
        return ConnectionFailed(f"{endpoint.label}: a key is encrypted; add it to your agent: ssh-add {files}")
    tried = ", ".join(offers.tried) or "no key, as there is none"
    encrypted = [f"{path} (encrypted, and not in the agent: ssh-add {path})" for path in offers.encrypted]
    left_out = "; not offered: " + ", ".join([*offers.left_out, *encrypted]) if offers.left_out or encrypted else ""
    return ConnectionFailed(
        f"{endpoint.label}: permission denied for user {endpoint.user}; tried {tried}{left_out}. "
        f"Copy a key there (ssh-copy-id {endpoint.label}) or name one in {config_path()} (IdentityFile)"
    )


def read_host_key(address: Address) -> HostKey:
    """The key that a server shows, without logging in.

    Raises:
        ConnectionFailed: it cannot be reached, or there is no file to write the key into.
    """
    endpoint = find_endpoint(address)
    if not endpoint.known_hosts:
        raise ConnectionFailed(f"{config_path()}: Host {address.host}: UserKnownHostsFile none: leave that line out")
    with _open_link(endpoint) as (jumps, link), ExitStack() as undo:
        for jump in jumps:
            undo.callback(jump.close)
        undo.callback(link.close)
        connection = paramiko.Transport(link)
        undo.callback(connection.close)
        connection.banner_timeout = connection.handshake_timeout = CONNECT_S
        try:
            connection.start_client(timeout=CONNECT_S)
            key = connection.get_remote_server_key()
        except (paramiko.SSHException, EOFError, OSError) as exc:
            raise _no_session(endpoint, exc) from exc
    return HostKey(endpoint.known_name, key.get_name(), key.get_base64(), key.fingerprint, endpoint.known_hosts[0])
