"""A board over SSH. The only module that imports paramiko; whatever paramiko raises is translated here.

Host keys are always checked strictly. Files travel over the command channel, so that a board needs no SFTP server.
Every wait has an end.
"""

from __future__ import annotations

import logging
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko

from edgeprune.device.address import Address, parse_address
from edgeprune.device.commands import FilesByCommands
from edgeprune.device.ssh_config import Endpoint, build_endpoint, config_path
from edgeprune.device.transport import Completed, OutputReader
from edgeprune.errors import ConnectionFailed, HostKeyError

CONNECT_S = 10.0
KEEPALIVE_S = 15
CHUNK = 1 << 15
MOST_JUMPS = 8
DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")

logging.getLogger("paramiko").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class HostKey:
    """A host key as a server shows it. `host` is what known_hosts calls it, `file` where it would be written."""

    host: str
    kind: str
    base64: str
    fingerprint: str
    file: Path


class SshTransport(FilesByCommands):
    """An authenticated connection; see Transport."""

    name = "ssh"

    def __init__(self, label: str, clients: Sequence[paramiko.SSHClient]) -> None:
        """Take over clients: the jumps in order, and last the board."""
        transport = clients[-1].get_transport()
        assert transport is not None
        self.host = label
        self.host_key = transport.get_remote_server_key().fingerprint
        self._clients = clients
        self._transport = transport

    def run(
        self,
        command: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float,
        on_line: Callable[[str], None] | None = None,
    ) -> Completed:
        """Run a command; see Transport."""
        reader = OutputReader(self.host, on_line)
        with self._guarded(timeout_s) as watchdog:
            channel = self._transport.open_session(timeout=timeout_s)
            channel.settimeout(1.0)
            channel.exec_command(shlex.join(command))
            _send(channel, stdin, watchdog)
            errors = _receive(channel, reader, watchdog)
            exit_code = channel.recv_exit_status()
            if exit_code < 0 and (watchdog.expired or not self._transport.is_active()):
                raise EOFError
            channel.close()
        reader.finish()
        return Completed(exit_code, reader.content, errors.decode(errors="replace"))

    def close(self) -> None:
        """Close the connection and the jumps before it."""
        for client in reversed(self._clients):
            client.close()

    @contextmanager
    def _guarded(self, timeout_s: float) -> Iterator[Watchdog]:
        """Translate what goes wrong with the link in the body, and end it after too long a silence."""
        watchdog = Watchdog(self._transport, timeout_s)
        try:
            with watchdog:
                yield watchdog
        except (paramiko.SSHException, EOFError, OSError) as exc:
            cause = f"no sign of life for {timeout_s:g} s" if watchdog.expired else "the connection was lost"
            raise ConnectionFailed(f"{self.host}: {cause}; check the board and run the same command again") from exc


class Watchdog:
    """Closes a connection after too long a silence: not every wait of paramiko's has a timeout of its own."""

    def __init__(self, transport: paramiko.Transport, timeout_s: float) -> None:
        self.expired = False
        self._transport = transport
        self._timeout_s = timeout_s
        self._heard = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._done.set()
        self._thread.join()

    def heard(self) -> None:
        """Note a sign of life."""
        self._heard = time.monotonic()

    def _watch(self) -> None:
        while not self._done.wait(min(1.0, self._timeout_s / 4)):
            if time.monotonic() - self._heard > self._timeout_s:
                self.expired = True
                self._transport.close()
                return


def _send(channel: paramiko.Channel, content: bytes, watchdog: Watchdog) -> None:
    """Send standard input; a command that ends early does not want the rest."""
    sent = 0
    with suppress(OSError):
        while sent < len(content):
            try:
                sent += channel.send(content[sent : sent + CHUNK])
            except TimeoutError:
                continue
            watchdog.heard()
        channel.shutdown_write()


def _receive(channel: paramiko.Channel, reader: OutputReader, watchdog: Watchdog) -> bytes:
    """Read standard output to its end; gives standard error."""
    errors: list[bytes] = []
    open_ = True
    while open_:
        try:
            chunk = channel.recv(CHUNK)
            reader.feed(chunk)
            open_ = bool(chunk)
            watchdog.heard()
        except TimeoutError:
            pass
        while channel.recv_stderr_ready():
            errors.append(channel.recv_stderr(CHUNK))
            watchdog.heard()
    with suppress(TimeoutError):
        while chunk := channel.recv_stderr(CHUNK):
            errors.append(chunk)
    return b"".join(errors)


def list_config_hosts() -> set[str]:
    """The Hosts that ~/.ssh/config names, without patterns."""
    return {name for name in _load_config().get_hostnames() if not set(name) & set("*?!")}


def _load_config() -> paramiko.SSHConfig:
    try:
        return paramiko.SSHConfig.from_path(str(config_path()))
    except FileNotFoundError:
        return paramiko.SSHConfig()
    except (OSError, UnicodeDecodeError, paramiko.SSHException) as exc:
        raise ConnectionFailed(f"{config_path()}: cannot be read: {exc}") from exc


def find_endpoint(address: Address, jumps: tuple[str, ...] | None = None) -> Endpoint:
    """Look an address up in ~/.ssh/config.

    Raises:
        ConnectionFailed: the file says something that cannot be honoured.
    """
    try:
        endpoint = build_endpoint(address, _load_config().lookup(address.host), jumps)
    except (ValueError, ImportError, paramiko.SSHException) as exc:
        raise ConnectionFailed(f"{config_path()}: Host {address.host}: {exc}") from exc
    if endpoint.proxy_command:
        raise ConnectionFailed(f"{config_path()}: Host {address.host}: ProxyCommand is not supported; use ProxyJump")
    return endpoint


def connect(address: Address) -> SshTransport:
    """Connect and log in, through the jumps that ~/.ssh/config names.

    Raises:
        HostKeyError: the host key is unknown, or not the known one.
        ConnectionFailed: unreachable, refused, no answer in time, or not let in.
    """
    clients = _connect_chain(find_endpoint(address), [])
    return SshTransport(find_endpoint(address).label, clients)


def _connect_chain(endpoint: Endpoint, inner: Sequence[str]) -> list[paramiko.SSHClient]:
    """Clients of the jumps, and last of the endpoint. `inner` are the hosts that this one leads to."""
    clients, link = _open_link(endpoint, inner)
    try:
        clients.append(_log_in(endpoint, link))
    except BaseException:
        for client in reversed(clients):
            client.close()
        raise
    return clients


def _open_link(endpoint: Endpoint, inner: Sequence[str] = ()) -> tuple[list[paramiko.SSHClient], Any]:
    """A socket to the endpoint, or a channel through its jumps; with the clients that carry it."""
    if not endpoint.jumps:
        return [], _open_socket(endpoint)
    if len(inner) >= MOST_JUMPS or endpoint.label in inner:
        raise ConnectionFailed(f"{endpoint.label}: ProxyJump goes in a circle: {' -> '.join((*inner, endpoint.label))}")
    *before, last = endpoint.jumps
    jump = find_endpoint(parse_address(last, "ProxyJump"), tuple(before) or None)
    clients = _connect_chain(jump, [*inner, endpoint.label])
    carrier = clients[-1].get_transport()
    assert carrier is not None
    try:
        there = (endpoint.host, endpoint.port)
        return clients, carrier.open_channel("direct-tcpip", there, ("127.0.0.1", 0), timeout=CONNECT_S)
    except (paramiko.SSHException, OSError, EOFError) as exc:
        for client in reversed(clients):
            client.close()
        raise ConnectionFailed(f"{endpoint.label}: {jump.label} cannot reach it: {exc}") from exc


def _open_socket(endpoint: Endpoint) -> socket.socket:
    where = f"{endpoint.label} ({endpoint.host}, port {endpoint.port})"
    try:
        link = socket.create_connection((endpoint.host, endpoint.port), timeout=CONNECT_S)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else a small packet waits 40 ms for the last one
        return link
    except socket.gaierror as exc:
        raise ConnectionFailed(f"{where}: no such host name; check the address, or add it to {config_path()}") from exc
    except ConnectionRefusedError as exc:
        raise ConnectionFailed(f"{where}: refused; is the SSH server running there, on that port?") from exc
    except TimeoutError as exc:
        raise ConnectionFailed(
            f"{where}: no answer within {CONNECT_S:g} s; is the board on, and in this network?"
        ) from exc
    except OSError as exc:
        raise ConnectionFailed(f"{where}: cannot be reached: {exc.strerror}") from exc


def _log_in(endpoint: Endpoint, link: Any) -> paramiko.SSHClient:
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(_Refuse(endpoint))
    for file in endpoint.known_hosts:
        if file.is_file():
            client.load_system_host_keys(str(file))
    try:
        client.connect(
            endpoint.key_host,
            port=endpoint.port,
            username=endpoint.user,
            key_filename=[str(key) for key in endpoint.keys if key.is_file()],  # type: ignore[arg-type]  # a list is right
            allow_agent=not endpoint.identities_only,
            look_for_keys=not endpoint.identities_only,
            timeout=CONNECT_S,
            banner_timeout=CONNECT_S,
            auth_timeout=CONNECT_S,
            channel_timeout=CONNECT_S,
            sock=link,
        )
        transport = client.get_transport()
        assert transport is not None
        transport.set_keepalive(KEEPALIVE_S)
    except BaseException as exc:
        client.close()
        link.close()
        raise _explain(endpoint, exc) from exc
    return client


def _explain(endpoint: Endpoint, exc: BaseException) -> BaseException:
    """What went wrong while logging in, in this project's errors."""
    if isinstance(exc, paramiko.BadHostKeyException):
        return HostKeyError(
            f"{endpoint.label}: THE HOST KEY HAS CHANGED: known is {exc.expected_key.fingerprint}, the server shows "
            f"{exc.key.fingerprint}. If the board was set up anew: ssh-keygen -R '{endpoint.known_name}', then "
            f"edgeprune devices trust {endpoint.label}; if not, someone may be in between"
        )
    if isinstance(exc, paramiko.PasswordRequiredException):
        return ConnectionFailed(f"{endpoint.label}: a key is encrypted; add it to your agent: ssh-add FILE")
    if isinstance(exc, paramiko.AuthenticationException):
        return ConnectionFailed(
            f"{endpoint.label}: permission denied for user {endpoint.user}; tried {describe_keys(endpoint)}. "
            f"Copy a key there (ssh-copy-id {endpoint.label}) or name one in {config_path()} (IdentityFile)"
        )
    if isinstance(exc, (paramiko.SSHException, EOFError, OSError)):
        return ConnectionFailed(f"{endpoint.label}: no SSH session: {str(exc) or 'the server hung up'}")
    return exc


def describe_keys(endpoint: Endpoint) -> str:
    """The keys that were offered, for a message."""
    tried = [str(key) for key in endpoint.keys]
    if not endpoint.identities_only:
        tried += [str(key) for name in DEFAULT_KEYS if (key := Path.home() / ".ssh" / name).is_file()]
        with suppress(paramiko.SSHException, OSError):
            tried += [f"agent key {key.fingerprint}" for key in paramiko.Agent().get_keys()]
    return ", ".join(dict.fromkeys(tried)) or "no key, as there is none"


class _Refuse(paramiko.MissingHostKeyPolicy):
    """Refuses an unknown host key, and says how to accept it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        label = self._endpoint.label
        raise HostKeyError(
            f"{label}: unknown host key {key.get_name()} {key.fingerprint}. Compare it with what the board shows "
            f"(ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then: edgeprune devices trust {label}"
        )


def read_host_key(address: Address) -> HostKey:
    """The key that a server shows, without logging in.

    Raises:
        ConnectionFailed: it cannot be reached.
    """
    endpoint = find_endpoint(address)
    clients, link = _open_link(endpoint)
    try:
        transport = paramiko.Transport(link)
        try:
            transport.start_client(timeout=CONNECT_S)
            key = transport.get_remote_server_key()
        finally:
            transport.close()
    except (paramiko.SSHException, EOFError, OSError) as exc:
        raise _explain(endpoint, exc) from exc
    finally:
        for client in reversed(clients):
            client.close()
    return HostKey(endpoint.known_name, key.get_name(), key.get_base64(), key.fingerprint, endpoint.known_hosts[0])


def find_known_keys(host: str, files: Sequence[Path]) -> dict[str, str]:
    """Known keys of a host: base64 by kind."""
    known = paramiko.HostKeys()
    for file in files:
        if file.is_file():
            known.load(str(file))
    entries = known.lookup(host)
    return {kind: key.get_base64() for kind, key in entries.items()} if entries is not None else {}
