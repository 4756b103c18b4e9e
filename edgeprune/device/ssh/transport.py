"""A board over SSH: commands on its connection. Files travel over the command channel: no SFTP server is needed there.

This and ssh_login.py are the only modules that import paramiko. Every wait has an end.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from edgeprune.device.ssh.login import connect_chain
from edgeprune.device.transports.address import Address
from edgeprune.device.transports.commands import FilesByCommands
from edgeprune.device.transports.endpoint import find_endpoint
from edgeprune.device.transports.frames import BOOTSTRAP, Frame, Framed, FramedReader
from edgeprune.device.transports.transport import SHELL_REMEDY, Completed, OutputReader, plain
from edgeprune.errors import ConnectionFailed, DeviceError
from edgeprune.extras import comes_with

with comes_with("ssh"):
    import paramiko

CHUNK = 1 << 15
OPENINGS = 3
"""How often a session is asked for: one that has just ended may still count."""
NO_SIGNAL = -1
"""paramiko's exit code where the server names none."""

logging.getLogger("paramiko").addHandler(logging.NullHandler())


def connect(address: Address) -> SshTransport:
    """Connect and log in, through the jumps that ~/.ssh/config names.

    Raises:
        HostKeyError: the host key is unknown, or not the known one.
        ConnectionFailed: unreachable, refused, no answer in time, or not let in.
    """
    endpoint = find_endpoint(address)
    return SshTransport(endpoint.label, lambda: connect_chain(endpoint))


class SshTransport(FilesByCommands):
    """An authenticated connection; see Transport."""

    name = "ssh"

    def __init__(self, label: str, reach: Callable[[], list[paramiko.Transport]]) -> None:
        """Connect by `reach`, which gives the connections to the jumps in order, and last to the board."""
        self.host = label
        self._reach = reach
        self._chains = [reach()]
        self.host_key = self._chains[0][-1].get_remote_server_key().fingerprint
        self._lock = threading.Lock()
        self._running: list[paramiko.Transport] = []
        self._closed = False

    def run(
        self,
        command: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float,
        on_line: Callable[[str], None] | None = None,
    ) -> Completed:
        """Run a command; see Transport. The login shell there may be any, and may print."""
        framed = Framed(command)
        output, errors = framed.frames()
        reader = FramedReader(self.host, on_line, output)
        with self._guarded(timeout_s, reader) as watchdog:
            channel = self._open_session(timeout_s)
            with self._counted(channel, watchdog):
                channel.settimeout(1.0)
                channel.exec_command(BOOTSTRAP)
                _send(channel, framed.line + stdin, watchdog)
                stderr = _receive(channel, errors, reader, watchdog)
                exit_code = channel.recv_exit_status()
                if watchdog.expired or (exit_code == NO_SIGNAL and not channel.get_transport().is_active()):
                    raise EOFError
                channel.close()
        reader.finish()
        return self._complete(output, exit_code, reader.content, stderr.decode(errors="replace"))

    def _complete(self, output: Frame, exit_code: int, content: bytes, errors: str) -> Completed:
        noise = plain(output.noise).strip()
        if not output.begun:
            reason = " ".join(f"{noise} {plain(errors)}".split())[-300:] or f"exit code {exit_code}"
            raise DeviceError(
                f"{self.host}: its login shell runs no commands: {reason}; {SHELL_REMEDY}, "
                "and no ForceCommand that refuses them"
            )
        return Completed(exit_code if output.exit_code is None else output.exit_code, content, errors, noise)

    def close(self) -> None:
        """Close the connection and the jumps before it; what runs there is let go of."""
        with self._lock:
            self._closed = True
            chains, self._chains = self._chains, []
        for chain in chains:
            for connection in reversed(chain):
                connection.close()

    def _open_session(self, timeout_s: float) -> paramiko.Channel:
        """A session on this connection, or on one more where the server allows no second one on it (MaxSessions).

        Raises:
            DeviceError: it allows none at all.
        """
        for turn in range(OPENINGS):
            for at in range(2):
                connection = self._connection(at)
                with suppress(paramiko.ChannelException):
                    return connection.open_session(timeout=timeout_s)
            time.sleep(0.1 * (turn + 1))
        raise DeviceError(
            f"{self.host}: its SSH server opens no session, though it lets us in; in /etc/ssh/sshd_config there, set "
            "MaxSessions to 1 or more"
        )

    def _connection(self, at: int) -> paramiko.Transport:
        """The first connection to the board, or a second one, made where there is none yet."""
        with self._lock:
            if self._closed or not self._chains:
                raise EOFError
            if at == len(self._chains):
                self._chains.append(self._reach())
            return self._chains[at][-1]

    @contextmanager
    def _guarded(self, timeout_s: float, reader: OutputReader) -> Iterator[Watchdog]:
        """Translate what goes wrong with the link in the body, and end it after too long a silence."""
        watchdog = Watchdog(timeout_s, self.close)
        try:
            with watchdog:
                yield watchdog
        except (paramiko.SSHException, EOFError, OSError) as exc:
            if exc is reader.failure:
                raise
            cause = f"no sign of life for {timeout_s:g} s" if watchdog.expired else "the connection was lost"
            raise ConnectionFailed(f"{self.host}: {cause}; check the board and run the same command again") from exc

    @contextmanager
    def _counted(self, channel: paramiko.Channel, watchdog: Watchdog) -> Iterator[None]:
        """While another command runs on the same connection, a silent one is let go of alone."""
        connection = channel.get_transport()

        def give_up() -> None:
            alone = self._running.count(connection) < 2
            (self.close if alone else channel.close)()

        self._running.append(connection)
        watchdog.give_up = give_up
        try:
            yield
        finally:
            self._running.remove(connection)


class Watchdog:
    """Ends a conversation after too long a silence: not every wait of paramiko's has a timeout of its own."""

    def __init__(self, timeout_s: float, give_up: Callable[[], None]) -> None:
        self.expired = False
        self.give_up = give_up
        self._timeout_s = timeout_s
        self._heard = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def heard(self) -> None:
        """Note a sign of life."""
        self._heard = time.monotonic()

    def _watch(self) -> None:
        while not self._stop.wait(min(1.0, self._timeout_s / 4)):
            if time.monotonic() - self._heard > self._timeout_s:
                self.expired = True
                self.give_up()
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


def _receive(channel: paramiko.Channel, errors: Frame, reader: OutputReader, watchdog: Watchdog) -> bytes:
    """Read standard output to its end; gives standard error, or what a shell says there that runs no commands."""
    chunks: list[bytes] = []
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
            chunks.append(errors.feed(channel.recv_stderr(CHUNK)))
            watchdog.heard()
    with suppress(TimeoutError):
        while chunk := channel.recv_stderr(CHUNK):
            chunks.append(errors.feed(chunk))
    chunks.append(errors.finish())
    return b"".join(chunks) if errors.begun else errors.noise.encode()
