"""What the SSH configuration says of a host, read as ssh reads it (ssh_config(5)), as far as it is honoured here."""

from __future__ import annotations

import getpass
import glob
import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgeprune.device.ssh.known_hosts import match_patterns
from edgeprune.errors import ConnectionFailed

SYSTEM_CONFIG = Path("/etc/ssh/ssh_config")
DEEPEST = 16
"""Files that include each other, as with ssh."""
MANY = ("identityfile", "certificatefile")
"""Keywords that add up; of all others the first that applies counts."""
WORD = re.compile(
    r"""(?P<space>[ \t]+)|(?P<end>\#.*)|"(?P<double>(?:\\["'\\]|[^"])*)"|'(?P<single>(?:\\["'\\]|[^'])*)'"""
    r"""|(?P<plain>(?:\\["'\\ ]|[^ \t"'])+)|(?P<open>["'].*)"""
)
MATCH_EXEC_S = 30.0


@dataclass(frozen=True)
class Query:
    """The host as it was named, and the user where one was; `local_user` is this user's name."""

    host: str
    user: str | None
    local_user: str = field(default_factory=getpass.getuser)


@dataclass
class Settings:
    """What applies to a host, by keyword in small letters. `final`: this is the second pass, which a file asks for."""

    query: Query
    values: dict[str, list[str]] = field(default_factory=dict)
    final: bool = False
    wants_final: bool = False

    def first(self, keyword: str, default: str = "") -> str:
        """The first word of a keyword."""
        return next(iter(self.values.get(keyword, ())), default)

    def add(self, keyword: str, words: Sequence[str]) -> None:
        """Note a line that applies."""
        if keyword in MANY:
            files = self.values.setdefault(keyword, [])
            files += [word for word in words[:1] if word not in files]
        elif keyword not in self.values:
            self.values[keyword] = list(words)

    @property
    def host(self) -> str:
        """Where to connect to."""
        name = self.first("hostname", "%h")
        return name.replace("%%", "\0").replace("%h", self.query.host).replace("\0", "%")

    @property
    def user(self) -> str:
        """Who logs in there."""
        return self.query.user or self.first("user") or self.query.local_user

    def expand(self, text: str, port: int) -> str:
        """A file or command with its tokens, `~` and ${NAMES} replaced (ssh_config(5), TOKENS).

        Raises:
            ValueError: an unknown token, or a name that is not in the environment.
        """
        tokens = {
            "%": "%",
            "d": str(Path.home()),
            "h": self.host,
            "i": str(os.getuid()),
            "k": self.first("hostkeyalias", self.host),
            "L": socket.gethostname().split(".")[0],
            "l": socket.gethostname(),
            "n": self.query.host,
            "p": str(port),
            "r": self.user,
            "u": self.query.local_user,
        }
        text = re.sub(r"\$\{(\w+)\}", lambda match: _look_up(os.environ, match[1], match[0]), text)
        text = re.sub(r"%(.)", lambda match: _look_up(tokens, match[1], match[0]), text)
        return str(Path(text).expanduser()) if text.startswith("~") else text


def _look_up(table: dict[str, str] | os._Environ[str], name: str, token: str) -> str:
    if name not in table:
        raise ValueError(f"{token} is not known here")
    return table[name]


def config_path() -> Path:
    """The user's SSH configuration."""
    return Path.home() / ".ssh" / "config"


def read_settings(query: Query) -> Settings:
    """What the user's and the system's configuration say of a host.

    Raises:
        ConnectionFailed: a file cannot be read, or says something that is not understood; with file and line.
    """
    settings = Settings(query)
    for final in (False, True):
        settings.final = final
        if final and not settings.wants_final:
            break
        for path in (config_path(), SYSTEM_CONFIG):
            _apply(_Place(path, settings), True)
    return settings


@dataclass(frozen=True)
class _Place:
    """A file that is being read."""

    path: Path
    settings: Settings
    depth: int = 0


def _apply(place: _Place, enclosing: bool) -> None:
    """Add what a file says; `enclosing` is whether the block applies that includes it."""
    active = enclosing
    for where, keyword, words in read_lines(place.path):
        if keyword == "host":
            active = enclosing and match_patterns(place.settings.query.host, words)
        elif keyword == "match":
            active = _match(words, place.settings, where) and enclosing
        elif keyword == "include":
            for path in find_included(words, where):
                if place.depth >= DEEPEST:
                    raise ConnectionFailed(f"{where}: files include each other more than {DEEPEST} deep")
                _apply(_Place(path, place.settings, place.depth + 1), active)
        elif active:
            place.settings.add(keyword, words)


def read_lines(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Each line as FILE:NUMBER, its keyword in small letters, and its words; nothing where there is no file.

    Raises:
        ConnectionFailed: the file cannot be read; a quotation has no end, or a keyword no value.
    """
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as exc:
        raise ConnectionFailed(f"{path}: cannot be read: {exc.strerror}") from exc
    for number, line in enumerate(text.split("\n"), 1):
        where, rest = f"{path}:{number}", line.strip(" \t\r\f")
        if not rest or rest.startswith("#"):
            continue
        match = re.match(r'"?([A-Za-z0-9]+)"?(?:[ \t]*=[ \t]*|[ \t]+)?', rest)
        if match is None:
            raise ConnectionFailed(f"{where}: expected a keyword and its value, such as `Port 22`; found {rest[:60]!r}")
        words = split_words(rest[match.end() :], where)
        if not words:
            raise ConnectionFailed(f"{where}: {match[1]} has no value")
        yield where, match[1].lower(), words


def split_words(text: str, where: str) -> list[str]:
    """The words of a line: quoted ones without their quotes, none from a `#` on.

    Raises:
        ConnectionFailed: a quotation has no end.
    """
    words: list[str] = []
    joined = False
    for match in WORD.finditer(text):
        if match["open"]:
            raise ConnectionFailed(f"{where}: a quotation has no end: {match['open'][:60]!r}")
        if match["space"]:
            joined = False
            continue
        if match["end"] and not joined:
            break
        part = next(text for name in ("double", "single", "plain", "end") if (text := match[name]) is not None)
        part = re.sub(r"\\([\"'\\ ])", r"\1", part)
        words[len(words) - joined :] = [(words[-1] if joined else "") + part]
        joined = True
    return words


def find_included(words: Sequence[str], where: str) -> Iterator[Path]:
    """The files that a line `Include` names: patterns, from ~/.ssh or, in the system's files, from /etc/ssh."""
    of_user = not where.startswith(f"{SYSTEM_CONFIG.parent}/")
    base = config_path().parent if of_user else SYSTEM_CONFIG.parent
    for word in words:
        path = str(base / Path(word).expanduser())
        yield from map(Path, sorted(glob.glob(path)))  # noqa: PTH207  ** and hidden files as a shell has them


def _match(words: Sequence[str], settings: Settings, where: str) -> bool:
    """Whether all criteria of a line `Match` hold.

    Raises:
        ConnectionFailed: one of them is not understood here.
    """
    rest, holds = list(words), True
    while rest:
        name = rest.pop(0)
        negated, name = name.startswith("!"), name.removeprefix("!").lower()
        if name in ("all", "canonical", "final"):
            settings.wants_final |= name == "final"
            fits = name == "all" or (name == "final" and settings.final)
        elif name in CRITERIA and rest:
            value = rest.pop(0)
            fits = holds and CRITERIA[name](value, settings)
        else:
            raise ConnectionFailed(
                f"{where}: Match {name}: is not understood here; expected all, final, {', '.join(CRITERIA)}, each but "
                "the first two with a value; put what edgeprune needs into a Host block"
            )
        holds = holds and fits != negated
    return holds


def _run(command: str, settings: Settings) -> bool:
    """Whether a command of `Match exec` succeeds, run by the user's shell as ssh does."""
    try:
        expanded = settings.expand(command, int(settings.first("port", "22")))
        shell = os.environ.get("SHELL") or "/bin/sh"
        process = subprocess.run(
            [shell, "-c", expanded], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False,
            timeout=MATCH_EXEC_S,
        )  # fmt: skip
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return False
    return process.returncode == 0


CRITERIA: dict[str, Callable[[str, Settings], bool]] = {
    "host": lambda value, settings: match_patterns(settings.host.lower(), value.lower().split(",")),
    "originalhost": lambda value, settings: match_patterns(settings.query.host, value.split(",")),
    "user": lambda value, settings: match_patterns(settings.user, value.split(",")),
    "localuser": lambda value, settings: match_patterns(settings.query.local_user, value.split(",")),
    "exec": _run,
}


def list_config_hosts() -> set[str]:
    """The Hosts that the user's configuration names, without patterns, included files too."""
    return {name for name in _host_names(config_path(), 0) if not set(name) & set("*?!")}


def _host_names(path: Path, depth: int) -> Iterator[str]:
    for where, keyword, words in read_lines(path):
        if keyword == "host":
            yield from words
        elif keyword == "include" and depth < DEEPEST:
            for included in find_included(words, where):
                yield from _host_names(included, depth + 1)
