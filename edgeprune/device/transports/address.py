"""An address of a board or a phone, as it is written."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgeprune.errors import TargetError

ADDRESS = re.compile(
    r"(?:(?P<user>[^\s@:/]+)@)?(?:\[(?P<v6>[0-9a-fA-F:.]+(?:%[A-Za-z0-9]+)?)\]|(?P<host>[^\s@:/\[\]-][^\s@:/\[\]]*))(?::(?P<port>[0-9]{1,5}))?"
)

PASSWORD = re.compile(r"^([^:@]*):.*@", re.DOTALL)
"""What looks like one in an address is not shown; SSH logs in with keys."""


@dataclass(frozen=True)
class Address:
    """`host` is a name, an IP address or a Host of ~/.ssh/config; None leaves user and port to that file."""

    host: str
    user: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        """As it is given: `user@host:port`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (f"{self.user}@" if self.user else "") + host + (f":{self.port}" if self.port else "")


def parse_address(text: str, where: str) -> Address:
    """Read `host`, `user@host`, `user@host:port` or `user@[IPv6]:port`.

    Raises:
        TargetError: it is none of these.
    """
    match = ADDRESS.fullmatch(text)
    port = int(match["port"]) if match and match["port"] else None
    if match is None or (port is not None and not 0 < port < 65536):
        shown = PASSWORD.sub(r"\1:***@", text)
        raise TargetError(f"{where}: {shown!r} is not an address; expected user@host, with :port if it is not 22")
    return Address(match["v6"] or match["host"], match["user"], port)


ADB = "adb:"
SERIAL = re.compile(r"[A-Za-z0-9_\[][A-Za-z0-9_.:\[\]%-]{0,99}")


@dataclass(frozen=True)
class AdbAddress:
    """A phone by its serial as `adb devices` lists it, or by `host:port` where adb goes over the network."""

    serial: str

    def __str__(self) -> str:
        """As it is given: `adb:serial`."""
        return ADB + self.serial


PORT = "serial:"
BAUD = 115_200
LINE = re.compile(r"(?P<port>(?:/dev/|COM)[^\s@]{1,200})(?:@(?P<baud>[0-9]{1,8}))?")


@dataclass(frozen=True)
class SerialAddress:
    """A serial port of this machine, and how many bits a second go over it."""

    port: str
    baud: int = BAUD

    def __str__(self) -> str:
        """As it is given: `serial:/dev/ttyACM0@115200`."""
        return PORT + self.port + (f"@{self.baud}" if self.baud != BAUD else "")


AnyAddress = Address | AdbAddress | SerialAddress


def parse_host(text: str, where: str) -> AnyAddress:
    """Read an address of a board: `adb:SERIAL`, `serial:PORT`, or what :func:`parse_address` reads.

    Raises:
        TargetError: it is none of these.
    """
    if text.startswith(PORT):
        return _parse_line(text, where)
    if not text.startswith(ADB):
        return parse_address(text, where)
    serial = text.removeprefix(ADB)
    if not SERIAL.fullmatch(serial):
        raise TargetError(f"{where}: {text!r} is no phone; expected adb:SERIAL, as `adb devices` lists it")
    return AdbAddress(serial)


def _parse_line(text: str, where: str) -> SerialAddress:
    match = LINE.fullmatch(text.removeprefix(PORT))
    if match is None or match["baud"] == "0":
        raise TargetError(
            f"{where}: {text!r} is no serial line; expected serial:/dev/ttyACM0, with @baud if not {BAUD}"
        )
    return SerialAddress(match["port"], int(match["baud"] or BAUD))
