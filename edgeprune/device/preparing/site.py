"""A board before it is prepared: its interpreters and the place of its venv, as one command prints them; judged."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from edgeprune.core.boards.doctor import MIN_PYTHON
from edgeprune.core.formats import RUNTIMES, Package, list_packages
from edgeprune.core.target import Target
from edgeprune.device.connect import VENV
from edgeprune.device.preparing.wheels import Wheel
from edgeprune.device.transports.transport import SHELL_REMEDY, Transport, describe_space
from edgeprune.errors import DeviceError, NoSpace

SILENCE_S = 120.0
OLDEST = ".".join(map(str, MIN_PYTHON))
VENV_MIB = 30
"""What `python3 -m venv` makes, pip included: 26 MiB with Python 3.11."""
COMPILED = 1.2
NEWER = tuple(f"python3.{minor}" for minor in range(15, MIN_PYTHON[1] - 1, -1))
SURVEY = """
describe=$1 venv=$2
shift 2
case $venv in "~/"*) venv=$HOME/${venv#"~/"} ;; esac
place=$venv
while [ ! -d "$place" ]; do place=${place%/*}; [ -n "$place" ] || place=/; done
printf 'venv=%s\\nplace=%s\\n' "$venv" "$place"
[ -w "$place" ] && echo writable=yes
mount=$(df -Pk -- "$place" | sed -n '2s/.*% *//p')
printf 'options=%s\\n' "$(grep -F -- " $mount " /proc/mounts | tail -n 1 | cut -d ' ' -f 4)"
printf 'space=%s\\n' "$(df -Pk -- "$place" | sed -n 2p)"
for python in "$venv/bin/python" "$@"; do
    case $python in "~/"*) python=$HOME/${python#"~/"} ;; esac
    command -v -- "$python" >/dev/null 2>&1 || continue
    printf 'python=%s\\n' "$("$python" -I -c "$describe" </dev/null 2>/dev/null)"
done
"""
"""Looks at the place of the venv $2 and at interpreters, the venv's first; changes nothing. $1 is DESCRIBE."""
DESCRIBE = """
import json, os, platform, sys
made_for = ""
try:
    for line in open(os.path.join(sys.prefix, "pyvenv.cfg")):
        name, _, value = line.partition("=")
        if name.strip() in ("version", "version_info"):
            made_for = value.strip()
except (IOError, OSError):
    pass
try:
    import pip
    has_pip = True
except ImportError:
    has_pip = False
facts = {"path": sys.executable, "version": list(sys.version_info[:2]), "machine": platform.machine()}
facts.update(glibc=platform.libc_ver()[1], prefix=sys.prefix, pip=has_pip, made_for=made_for)
facts["is_venv"] = sys.prefix != getattr(sys, "base_prefix", sys.prefix)
print(json.dumps(facts))
"""


@dataclass(frozen=True)
class Interpreter:
    """A board's Python: what wheels it takes. `made_for` is the version that its venv was made with."""

    version: tuple[int, int]
    machine: str
    glibc: str
    path: str = ""
    is_venv: bool = False
    pip: bool = False
    made_for: str = ""

    def describe(self) -> str:
        """For messages."""
        return f"Python {self.version[0]}.{self.version[1]} on {self.machine}"

    @property
    def recent(self) -> bool:
        """Whether it is new enough."""
        return self.version >= MIN_PYTHON

    @property
    def sound(self) -> bool:
        """Whether a venv can be kept: its Python is new enough, has pip, and is the one that it was made with."""
        made_for = re.match(r"([0-9]+)\.([0-9]+)", self.made_for)
        same = made_for is not None and tuple(map(int, made_for.groups())) == self.version
        return self.recent and self.is_venv and self.pip and same


@dataclass(frozen=True)
class Site:
    """A board before anything is made there. `pythons` are its interpreters, without those of its venv."""

    venv: str
    place: str
    writable: bool
    options: tuple[str, ...]
    free_bytes: int | None
    venv_python: Interpreter | None
    pythons: tuple[Interpreter, ...]


def survey(transport: Transport, python: str) -> Site:
    """Look at a board; `python` is the interpreter that the target names, if it does.

    Raises:
        DeviceError: it runs no commands as a board does.
    """
    candidates = [python] if python else ["python3", *NEWER]
    completed = transport.run(["sh", "-c", SURVEY, "sh", DESCRIBE, VENV, *candidates], timeout_s=SILENCE_S)
    lines = [line.partition("=") for line in completed.stdout.decode(errors="replace").splitlines()]
    fields = {name: value for name, _, value in lines if name != "python"}
    if "venv" not in fields or "place" not in fields:
        reason = completed.stderr.strip()[-200:]
        raise DeviceError(f"{transport.host}: does not run commands as a board does: {reason!r}; {SHELL_REMEDY}")
    pairs = [_parse_interpreter(value) for name, _, value in lines if name == "python"]
    interpreters = [(interpreter, prefix) for interpreter, prefix in filter(None, pairs)]
    own = [
        interpreter
        for interpreter, prefix in interpreters
        if prefix == fields["venv"] or interpreter.path.startswith(f"{fields['venv']}/")
    ]
    return Site(
        venv=fields["venv"],
        place=fields["place"],
        writable=fields.get("writable") == "yes",
        options=tuple(fields.get("options", "").split(",")),
        free_bytes=_parse_space(fields.get("space", "")),
        venv_python=next(iter(own), None),
        pythons=tuple(interpreter for interpreter, _ in interpreters if interpreter not in own),
    )


def find_free(transport: Transport, place: str) -> int | None:
    """Bytes that are free on the disk of a folder, where it tells them."""
    completed = transport.run(["df", "-Pk", "--", place], timeout_s=SILENCE_S)
    return _parse_space(completed.stdout.decode(errors="replace"))


def _parse_space(text: str) -> int | None:
    """The bytes that are free, of what `df -Pk` prints."""
    space = re.search(r"\s(\d+)\s+(\d+)\s+(\d+)\s+\d+%", text)
    return int(space[3]) * 1024 if space else None


def _parse_interpreter(line: str) -> tuple[Interpreter, str] | None:
    """An interpreter and its prefix, from what DESCRIBE prints; None where it prints something else."""
    try:
        fields: dict[str, Any] = json.loads(line)
        version = (int(fields["version"][0]), int(fields["version"][1]))
        texts = {name: str(fields[name]) for name in ("machine", "glibc", "path", "made_for")}
        interpreter = Interpreter(version, is_venv=bool(fields["is_venv"]), pip=bool(fields["pip"]), **texts)
        return interpreter, str(fields["prefix"])
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return None


def choose_interpreter(site: Site, target: Target, host: str) -> Interpreter:
    """The Python to install for: that of the venv where it can be kept, else the first that one can be made with.

    Raises:
        DeviceError: there is none, or the target names one that nothing can be installed for.
    """
    if target.python:
        return _check_named(site, target, host)
    if site.venv_python is not None and site.venv_python.sound:
        return site.venv_python
    fitting = [interpreter for interpreter in site.pythons if interpreter.recent]
    if fitting:
        return fitting[0]
    if not site.pythons:
        raise DeviceError(f"{host}: no Python there; install {OLDEST} or newer; on Debian: apt install python3-venv")
    raise DeviceError(
        f"{host}: {site.pythons[0].path} is {site.pythons[0].describe()}, which is too old; {OLDEST} or newer is "
        f"needed (nothing was made there). On Ubuntu 18.04, as JetPack 4 has it: sudo apt install python{OLDEST} "
        f"python{OLDEST}-venv, then the same command again, which takes the newest that is there"
    )


def _check_named(site: Site, target: Target, host: str) -> Interpreter:
    """The interpreter that a target names, where wheels can be installed for it."""
    place = str(PurePosixPath(target.python).parent.parent) if target.python.count("/") > 1 else "~/venv"
    remedy = f"make a venv there (python3 -m venv {place}) and name its bin/python, or leave python out of the target"
    interpreter = next(iter(site.pythons), site.venv_python)
    if interpreter is None:
        raise DeviceError(f"{host}: python = {target.python!r} of the target does not run there; {remedy}")
    if not interpreter.recent:
        raise DeviceError(
            f"{host}: python = {target.python!r} is {interpreter.describe()}; {OLDEST} or newer is needed"
        )
    if not interpreter.is_venv or not interpreter.pip:
        what = "has no pip" if interpreter.is_venv else "is the system's Python, and no venv"
        raise DeviceError(
            f"{host}: python = {target.python!r} of the target {what}; nothing is installed there: {remedy}"
        )
    return interpreter


def find_needed(keeps_venv: bool, packages: Sequence[str], wheels: Sequence[Wheel] | None) -> int:
    """Bytes that the packages will take, with the wheels beside them, and the venv unless one is kept."""
    venv = 0 if keeps_venv else VENV_MIB << 20
    if wheels is None:
        return venv + (list_packages()[packages[0]].installed_mib << 20)
    return venv + int(sum(wheel.packed_bytes + COMPILED * wheel.unpacked_bytes for wheel in wheels))


def check_place(site: Site, needed: int, host: str) -> None:
    """Require that the venv can be made where it shall lie.

    Raises:
        NoSpace: it does not fit.
        DeviceError: it may not be written there, or nothing that lies there may be run.
    """
    if "ro" in site.options or not site.writable:
        why = "is on a disk that is mounted read-only" if "ro" in site.options else "cannot be written by this user"
        raise DeviceError(f"{host}: {site.place} {why}, so {VENV} cannot be made; mend that, or log in as another user")
    if "noexec" in site.options:
        raise DeviceError(
            f"{host}: {site.place} is on a disk that runs no programs (mounted noexec), so a runtime in {VENV} would "
            f"not load; there: sudo mount -o remount,exec THAT DISK, or make {VENV} a link to a folder on another disk"
        )
    if site.free_bytes is not None and needed > site.free_bytes:
        raise NoSpace(f"{host}: {describe_space(VENV, needed, site.free_bytes)}; nothing was made there")


def choose_all_packages(runtimes: Sequence[str], interpreter: Interpreter, host: str) -> tuple[str, ...]:
    """What to install for several runtimes: of those that there is something for.

    Raises:
        DeviceError: nothing fits.
    """
    packages, refusals = list[str](), list[DeviceError]()
    for runtime in runtimes:
        try:
            packages += choose_packages(runtime, interpreter, host)
        except DeviceError as exc:
            refusals.append(exc)
    if not packages:
        raise refusals[0]
    return tuple(packages)


def choose_packages(runtime: str, interpreter: Interpreter, host: str) -> tuple[str, ...]:
    """What to install for a runtime; the first is the runtime itself.

    Raises:
        DeviceError: nothing fits.
    """
    package = _find_package(runtime, interpreter)
    if package:
        return (package.name, *package.companions)
    others = [name for name in RUNTIMES if _find_package(name, interpreter)]
    remedy = f"use --runtime {others[0]}" if others else "use an older Python or a 64-bit system"
    raise DeviceError(f"{host}: there is no {runtime} for {interpreter.describe()}; {remedy}")


def _find_package(runtime: str, interpreter: Interpreter) -> Package | None:
    """The package of a runtime that has wheels for an interpreter."""
    is_wide = interpreter.machine in ("aarch64", "x86_64")
    for package in RUNTIMES[runtime].packages:
        oldest, newest = package.pythons
        if oldest <= interpreter.version[:2] <= newest and (is_wide or not package.needs_64_bits):
            return package
    return None
