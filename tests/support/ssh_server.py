"""A real OpenSSH server on this machine, with keys, home and client configuration of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
START_S = 10.0

CONFIG = """
Port {port}
ListenAddress {address}
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
SetEnv HOME={board}
ForceCommand export HOME='{board}'; cd "$HOME" && {prelude} {shell} -c "$SSH_ORIGINAL_COMMAND"{epilogue}
{more}
"""


def why_not() -> str:
    """Why no server can be started here; empty where one can."""
    if SSHD is None or shutil.which("ssh-keygen") is None:
        return "no sshd: run deploy/setup/test_packages.sh as root, or install openssh-server"
    return ""


@dataclass
class SshServer:
    """`board` is the home that a session finds; `home` is a client's home that knows the server as Host `board`.

    `shell` is the login shell, `more` are lines of its configuration.
    """

    folder: Path
    prelude: str = ""
    shell: str = "exec sh"
    epilogue: str = ""
    more: str = ""
    port: int = 0
    address: str = "127.0.0.1"
    process: subprocess.Popen[bytes] | None = None
    config: ClassVar[str] = CONFIG
    board: Path = field(init=False)
    home: Path = field(init=False)

    def __post_init__(self) -> None:
        self.board, self.home = self.folder / "board", self.folder / "home"
        self.board.mkdir(parents=True)
        (self.home / ".ssh").mkdir(parents=True, mode=0o700)
        self.port = self.port or _free_port()
        self.make_key(self.folder / "host_key")
        self.make_key(self.home / ".ssh" / "key")
        shutil.copy(self.home / ".ssh" / "key.pub", self.folder / "authorized_keys")
        self.write_client_config()
        self.trust()

    @property
    def known_hosts(self) -> Path:
        return self.home / ".ssh" / "known_hosts"

    @property
    def fingerprint(self) -> str:
        """The SHA256 fingerprint of the host key, as ssh-keygen says it."""
        completed = subprocess.run(
            ["ssh-keygen", "-lf", self.folder / "host_key.pub"], check=True, capture_output=True, text=True
        )
        return completed.stdout.split()[1]

    def make_key(self, path: Path) -> None:
        for old in (path, path.with_suffix(".pub")):
            old.unlink(missing_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)

    def write_client_config(self, more: str = "") -> None:
        """`~/.ssh/config` of the client, with a Host `board`."""
        lines = (
            "Host board",
            f"HostName {self.address}",
            f"Port {self.port}",
            f"User {getpass.getuser()}",
            f"IdentityFile {self.home}/.ssh/key",
            "IdentitiesOnly yes",
        )
        (self.home / ".ssh" / "config").write_text("\n".join(lines) + "\n" + more)

    def trust(self) -> None:
        """Write the host key into the client's known_hosts."""
        key = (self.folder / "host_key.pub").read_text()
        self.known_hosts.write_text(f"[{self.address}]:{self.port} {key}")

    def lend_runtimes(self) -> None:
        """Give the board this interpreter's packages, where `devices setup` would put them."""
        place = self.board / ".local" / "share" / "edgeprune"
        place.mkdir(parents=True)
        (place / "venv").symlink_to(sys.prefix)

    def command(self) -> list[str]:
        """How the server is started."""
        assert SSHD is not None
        return [SSHD, "-D", "-f", str(self.folder / "sshd_config"), "-E", str(self.folder / "log")]

    def environment(self) -> dict[str, str]:
        """What the server is started with."""
        return dict(os.environ)

    def restart(self, **changes: str) -> None:
        """Start it anew with another login shell or configuration."""
        self.stop()
        for name, value in changes.items():
            setattr(self, name, value)
        self.start()

    def start(self) -> None:
        places = {"folder": self.folder, "board": self.board}
        login = {"prelude": self.prelude, "shell": self.shell, "epilogue": self.epilogue, "more": self.more}
        text = self.config.format(port=self.port, address=self.address, **login, **places)
        (self.folder / "sshd_config").write_text(text)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        self.process = subprocess.Popen(self.command(), env=self.environment())
        end = time.monotonic() + START_S
        while time.monotonic() < end and self.process.poll() is None:
            with suppress(OSError), socket.create_connection((self.address, self.port), timeout=1):
                return
            time.sleep(0.02)
        raise RuntimeError(f"sshd did not start; see {self.folder / 'log'}")

    def sessions(self) -> list[int]:
        """Processes that serve connections, and what they run."""
        assert self.process is not None
        return _descendants(self.process.pid)

    def signal_sessions(self, number: signal.Signals) -> None:
        """Kill, stop or continue every connection, and what runs in it."""
        for pid in self.sessions():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> None:
        """End the server and every connection."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGSTOP)  # else it may serve one more meanwhile, who keeps its port
        for pid in (*self.sessions(), self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.process = None


ARM64_CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey /run/edgeprune/host_key
PidFile none
AuthorizedKeysFile /run/edgeprune/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
SetEnv QEMU_CPU=cortex-a72
"""
ENTER = """
set -e
mount -t proc proc "$1/proc"
mount --bind "$2" "$1/proc/cpuinfo"
mount --bind /dev "$1/dev"
mkdir -p "$1/run/sshd" "$1/run/edgeprune"
mount --bind "$3" "$1/run/edgeprune"
exec chroot "$1" /usr/sbin/sshd -D -e -f /run/edgeprune/sshd_config
"""
"""Runs in a mount namespace of its own, which goes with it: rootfs $1, cpuinfo $2, folder of keys $3."""


@dataclass
class Arm64Server(SshServer):
    """The SSH server inside the userland that deploy/setup/arm64_userland.sh made."""

    config: ClassVar[str] = ARM64_CONFIG
    userland: Path = Path()

    def command(self) -> list[str]:
        enter = ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, "sh"]
        return [*enter, str(self.userland / "rootfs"), str(self.userland / "cpuinfo"), str(self.folder)]

    def environment(self) -> dict[str, str]:
        """The default CPU of qemu miscomputes XNNPACK's int8."""
        return {**os.environ, "QEMU_CPU": "cortex-a72"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _descendants(pid: int) -> list[int]:
    """Every process below one."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    direct = children.get(pid, [])
    return [*direct, *(lower for child in direct for lower in _descendants(child))]
