"""Which `benchmark_model` a board runs: the user's file, pushed by its sha256, or one that lies there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgeprune.core.boards.delegates import parse_flags
from edgeprune.core.boards.elf import HEAD_BYTES, can_run, parse_elf_machine
from edgeprune.device.transports.commands import last_line
from edgeprune.device.transports.transport import Transport, hash_file, plain
from edgeprune.disk import describe_os_error
from edgeprune.errors import RuntimeMissing, UsageError

BENCHMARK = "benchmark_model"
SHORT_S = 60.0
FIND = """
for place in "$@"; do
    case $place in */*) [ -f "$place" ] || continue ;; *) place=$(command -v -- "$place") || continue ;; esac
    chmod u+x -- "$place" 2>/dev/null
    echo "machine=$(uname -m)"
    echo "path=$place"
    echo "sha256=$(sha256sum < "$place" | cut -c 1-64)"
    command -v taskset >/dev/null && echo "taskset=yes"
    exit 0
done
echo "machine=$(uname -m)"
"""
"""Says where the first of some places is that is there, and what is known of it."""
CANNOT_START = (126, 127)
"""Exit codes of a shell: a program that is none here, or whose loader is not there (POSIX, Shell, 2.8.2)."""
PLAIN_PATH = re.compile(r"[A-Za-z0-9_./+-]{1,400}")
GET = "docs/phones.md says where it comes from; give it by --benchmark-model FILE"


@dataclass(frozen=True)
class Binary:
    """A benchmark_model that answers: where it lies, its sha256, the flags that it knows, and what goes with it."""

    path: str
    sha256: str
    flags: frozenset[str]
    has_taskset: bool = True

    @property
    def saves_outputs(self) -> bool:
        """Whether it takes inputs and writes outputs, as newer ones do."""
        return {"input_layer_value_files", "output_filepath"} <= self.flags


def own_folder(transport: Transport) -> str:
    """Where files of ours lie on a board, from its home on."""
    return "edgeprune" if transport.name == "adb" else ".cache/edgeprune/native"


def find_binary(transport: Transport, file: str | None) -> Binary:
    """The benchmark_model of a board: a file of this machine, pushed where it is missing, or one that lies there.

    Raises:
        UsageError: that file cannot be read.
        RuntimeMissing: none is there, it is for another processor, or it does not answer `--help`.
        DeviceError: anything else that goes wrong there.
    """
    places = [f"./{BENCHMARK}", f"{own_folder(transport)}/{BENCHMARK}", BENCHMARK]
    if file is not None:
        _check_machine(transport, Path(file))
        places = [_push(transport, Path(file))]
    completed = transport.run(["sh", "-c", FIND, "sh", *places], timeout_s=SHORT_S)
    rows = dict(
        line.split("=", 1) for line in plain(completed.stdout.decode(errors="replace")).splitlines() if "=" in line
    )
    if "path" not in rows:
        raise RuntimeMissing(f"{transport.host}: neither Python nor {BENCHMARK} is there; {_explain(transport, rows)}")
    if not PLAIN_PATH.fullmatch(rows["path"]):
        raise RuntimeMissing(f"{transport.host}: {rows['path']!r}: put {BENCHMARK} where the path is plain letters")
    flags = _ask_flags(transport, rows)
    return Binary(rows["path"], rows.get("sha256", ""), flags, "taskset" in rows)


def _explain(transport: Transport, rows: dict[str, str]) -> str:
    machine = rows.get("machine", "its architecture")
    place = "/data/local/tmp" if transport.name == "adb" else "its home"
    return f"put TFLite's {BENCHMARK} for {machine} into {place}, or give it by --benchmark-model FILE (docs/phones.md)"


def _check_machine(transport: Transport, file: Path) -> None:
    """Refuse a program for another processor before it is pushed."""
    try:
        with file.open("rb") as stream:
            program = parse_elf_machine(stream.read(HEAD_BYTES))
    except OSError as exc:
        raise UsageError(f"--benchmark-model: {describe_os_error(exc, file)}") from exc
    if not program:
        return
    completed = transport.run(["uname", "-m"], timeout_s=SHORT_S)
    machine = plain(completed.stdout.decode(errors="replace")).strip()
    if machine and not can_run(program, machine):
        raise RuntimeMissing(
            f"{transport.host}: {file} is a program for {program}, but the board is {machine}; give TFLite's "
            f"{BENCHMARK} built for {machine} (docs/phones.md)"
        )


def _push(transport: Transport, file: Path) -> str:
    remote = f"{own_folder(transport)}/{BENCHMARK}-{hash_file(file)[:16]}"
    transport.put(file, remote)
    return remote


def _ask_flags(transport: Transport, rows: dict[str, str]) -> frozenset[str]:
    """The flags that it lists; what fails here would fail at every call. Its exit code is 1 for `--help`."""
    path = rows["path"] if rows["path"].startswith("/") else f"./{rows['path'].removeprefix('./')}"
    rows["path"] = path
    completed = transport.run([path, "--help"], timeout_s=SHORT_S)
    text = f"{completed.stdout.decode(errors='replace')}\n{completed.stderr}"
    flags = parse_flags(text)
    if flags:
        return flags
    wrong = completed.exit_code in CANNOT_START or "syntax error" in text
    reason = (
        f"it is not for this board ({rows.get('machine', '')})" if wrong else "it does not answer --help as it should"
    )
    raise RuntimeMissing(f"{transport.host}: {path}: {reason}: {last_line(plain(text))}; {GET}")
