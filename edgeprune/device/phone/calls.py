"""Calls of `benchmark_model`: the words of one, and many in a single command whose results come as they are made."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edgeprune.core.boards.delegates import delegate_flags, parse_share
from edgeprune.core.boards.phone import core_mask
from edgeprune.core.target import Target
from edgeprune.device.phone.binary import BENCHMARK, Binary
from edgeprune.device.transports.transport import AGAIN, Transport, plain
from edgeprune.errors import RemoteError, RuntimeMissing

SILENCE_S = 180.0
"""The longest that a call may say nothing."""
MANY = r"""
set -f
mark=$1; shift
while IFS= read -r words; do
    printf '\n<%s>\n' "$mark"
    "$@" $words </dev/null 2>&1
    printf '\n<%s %s>\n' "$mark" $?
done
"""
"""Calls the command $2... once for each line of its input, whose words it adds; $1 marks where a call begins and ends,
on a line of its own even where a call ended in the middle of one."""


@dataclass(frozen=True)
class Call:
    """What one call printed, and when it ended, in s."""

    number: int
    exit_code: int
    text: str
    at_s: float


@dataclass
class CallReader:
    """Takes lines that MANY prints, and hands on each call that is whole."""

    on_call: Callable[[Call], None]
    mark: str = field(default_factory=lambda: secrets.token_hex(8))
    count: int = 0
    _lines: list[str] | None = None

    def feed(self, line: str) -> None:
        """Take one line."""
        line = line.rstrip("\r")
        if line == f"<{self.mark}>":
            self._lines = []
            return
        end = re.fullmatch(rf"<{self.mark} ([0-9]{{1,5}})>", line)
        if end and self._lines is not None:
            call = Call(self.count, int(end.group(1)), "\n".join(self._lines), time.time())
            self.count, self._lines = self.count + 1, None
            self.on_call(call)
        elif self._lines is not None:
            self._lines.append(plain(line))


def base_words(host: str, binary: Binary, target: Target, cores: tuple[int, ...], threads: int) -> list[str]:
    """What every call of a measurement begins with: cores, threads, and the delegate that the target asks for.

    Raises:
        RuntimeMissing: the benchmark_model was built without that delegate, or the board cannot pin a process.
    """
    delegate, *others = delegate_flags(target.provider)
    has_delegate = delegate.removeprefix("--").partition("=")[0] in binary.flags
    if not has_delegate and target.provider != "cpu":
        raise RuntimeMissing(
            f'{host}: provider = "{target.provider}": this {BENCHMARK} knows no {delegate}; give one that was built '
            "with that delegate by --benchmark-model FILE"
        )
    if cores and not binary.has_taskset:
        raise RuntimeMissing(f"{host}: cores = {list(cores)}: there is no `taskset`; leave cores out of the target")
    pinned = ["taskset", core_mask(cores)] if cores else []
    flags = [delegate, *others] if has_delegate else []
    return [*pinned, binary.path, f"--num_threads={threads}", *flags]


def run_many(transport: Transport, words: Sequence[str], rows: Sequence[str], on_call: Callable[[Call], None]) -> None:
    """One command that makes a call for each row of further words, separated by blanks.

    Raises:
        RemoteError: a call is missing although the command ended.
        ConnectionFailed: the link was lost; the calls up to then were handed on.
    """
    reader = CallReader(on_call)
    content = "".join(f"{row}\n" for row in rows).encode()
    completed = transport.run(
        ["sh", "-c", MANY, "sh", reader.mark, *words], stdin=content, timeout_s=SILENCE_S, on_line=reader.feed
    )
    if reader.count != len(rows):
        raise RemoteError(
            f"{transport.host}: {reader.count} of {len(rows)} calls of {BENCHMARK} came back "
            f"(exit code {completed.exit_code}): {completed.stderr[-200:]}; {AGAIN}"
        )


def check_delegate(host: str, text: str, target: Target, name: str) -> dict[str, float]:
    """The share of the nodes that the target's provider took; empty for the CPU, or where nothing tells it.

    Raises:
        RemoteError: some fell back to the CPU, or nothing tells, and the target does not allow it.
    """
    provider = target.provider
    if provider == "cpu":
        return {}
    share = parse_share(text, provider)
    if not target.allow_fallback and (share is None or share < 1.0):
        how = "nothing tells how many" if share is None else f"only {share:.1%}"
        raise RemoteError(
            f'{host}: {name}: {how} of its nodes ran on "{provider}", the others fall back to the CPU; set '
            'allow_fallback = true in the target, or provider = "cpu"'
        )
    return {} if share is None else {provider: share, "cpu": 1.0 - share}


def fail_call(host: str, exit_code: int, text: str) -> RemoteError:
    """A call that gave no result, with what it said last."""
    lines = [line for line in text.splitlines() if line.strip()]
    return RemoteError(f"{host}: {BENCHMARK} failed (exit code {exit_code}): {' '.join(lines[-2:])[-300:]}")
