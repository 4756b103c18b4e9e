"""Commands for shells that print: scripts that any login shell starts, and what they print framed by a random word.

A login shell may print a greeting, a prompt or nothing that anyone wants, before and after a command, on both streams;
it may be csh or fish, which quote in ways of their own. So it is asked for one line that all of them understand alike,
and that line has `sh` read the script from its standard input.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edgeprune.device.transports.transport import OutputReader

BOOTSTRAP = """sh -c 'IFS= read -r s && eval "$(printf %b "$s")"'"""
"""`read` takes one line of standard input and not a byte more: what follows is the command's input."""
MOST_NOISE = 2000


@dataclass
class Frame:
    """Takes what stands between the two marks of `word` out of a stream; what is around it is `noise`."""

    word: str
    noise: str = ""
    exit_code: int | None = None
    _begun: bool = False
    _rest: bytes = b""

    @property
    def begin(self) -> bytes:
        """The mark before the content."""
        return f"<{self.word}>".encode()

    @property
    def end(self) -> bytes:
        """The mark behind the content, which the exit code and `>` follow."""
        return f"</{self.word} ".encode()

    @property
    def begun(self) -> bool:
        """Whether the command was started."""
        return self._begun

    def feed(self, chunk: bytes) -> bytes:
        """Take what came; gives what of it is content, as far as that is certain."""
        self._rest += chunk
        if self.exit_code is not None:
            return self._drop(len(self._rest))
        if not self._begun:
            at = self._rest.find(self.begin)
            if at < 0:
                return self._drop(len(self._rest) - len(self.begin) + 1)
            self._drop(at)
            self._rest, self._begun = self._rest[len(self.begin) :], True
        return self._take()

    def _take(self) -> bytes:
        at = self._rest.find(self.end)
        if at < 0:
            at = max(0, len(self._rest) - len(self.end) + 1)
            content, self._rest = self._rest[:at], self._rest[at:]
            return content
        code, closed, after = self._rest[at + len(self.end) :].partition(b">")
        content, self._rest = self._rest[:at], self._rest[at:]
        if closed and code.isdigit():
            self.exit_code, self._rest = int(code), after
            self._drop(len(after))
        return content

    def _drop(self, count: int) -> bytes:
        """Let go of what is no content; some of it is kept to be shown."""
        dropped, self._rest = self._rest[: max(0, count)], self._rest[max(0, count) :]
        self.noise = (self.noise + dropped.decode(errors="replace"))[:MOST_NOISE]
        return b""

    def finish(self) -> bytes:
        """What is left when the stream has ended without its second mark: content, or the end of the noise."""
        rest, self._rest = self._rest, b""
        if self._begun and self.exit_code is None:
            return rest
        self.noise = (self.noise + rest.decode(errors="replace"))[:MOST_NOISE]
        return b""


@dataclass(frozen=True)
class Framed:
    """A command between marks; `word` is new for each, so that nothing that anybody prints can be taken for them."""

    command: Sequence[str]
    prelude: str = ""
    word: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def script(self) -> str:
        """For `sh`: the command with its marks on standard output and standard error."""
        begin, end = f"<{self.word}>", f"</{self.word} %d>"
        return (
            f"printf %s '{begin}'; printf %s '{begin}' >&2; {self.prelude}{shlex.join(self.command)}; code=$?; "
            f"printf '{end}' $code >&2; printf '{end}' $code"
        )

    @property
    def line(self) -> bytes:
        """The script as BOOTSTRAP reads it."""
        return self.script.replace("\\", "\\\\").replace("\n", "\\n").encode() + b"\n"

    def frames(self) -> tuple[Frame, Frame]:
        """What takes the marks off standard output and standard error."""
        return Frame(self.word), Frame(self.word)


class FramedReader(OutputReader):
    """Gathers what stands between the marks of a frame."""

    def __init__(self, host: str, on_line: Callable[[str], None] | None, frame: Frame) -> None:
        super().__init__(host, on_line)
        self._frame = frame

    def feed(self, chunk: bytes) -> None:
        """Take what came, with marks and noise."""
        super().feed(self._frame.feed(chunk))

    def finish(self) -> None:
        """Take what was held back as a mark that might come, and hand on a last line that has no end."""
        super().feed(self._frame.finish())
        super().finish()
