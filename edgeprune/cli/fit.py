"""The command that says whether a ready file fits a microcontroller."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprune.cli.output import json_option, print_result
from edgeprune.cli.progress import say
from edgeprune.core.releasing.gate import EXIT_CODES, FAIL, INCONCLUSIVE
from edgeprune.errors import TargetError

if TYPE_CHECKING:
    from edgeprune.core.memory.fit import FileNeeds
    from edgeprune.core.memory.size import MemorySize

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.argument("model", type=FILE)
@click.option("--target", "names", multiple=True, help="A microcontroller, by name or .toml file; again for several.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Where to write a page with the picture.")
@json_option
def fit(model: Path, names: Sequence[str], html: Path | None) -> None:
    """Say whether MODEL, a .tflite file, fits microcontrollers, and what makes it big.

    Its arena is counted by TensorFlow Lite Micro where that is installed (extra mcu), else its activations alone are
    planned. Without --target, all targets with a memory are told. Exit code 3 where the file is too big for one that is
    named, 4 where what is known does not tell.
    """
    from edgeprune.core.memory.document import describe_fit, render_fit

    memories = _list_memories(names)
    needs, notes = _read_needs(model)
    document = describe_fit(str(model), needs, memories, notes)
    text = render_fit(document)
    if html is not None:
        from edgeprune.report.memory import render_memory_page

        html.write_text(render_memory_page(document))
        text = f"{text}\npage: {html}"
    print_result({**document, "page": html}, text)
    sys.exit(_find_exit_code([row["verdict"] for row in document["targets"]]) if names else 0)


def _list_memories(names: Sequence[str]) -> dict[str, MemorySize]:
    """The memories of the targets that are named, else of all that have one.

    Raises:
        TargetError: one of those that are named has none.
    """
    from edgeprune.shipped import list_targets, load_target

    targets = [load_target(name) for name in (names or list_targets())]
    without = [target.name for target in targets if target.memory is None]
    if names and without:
        raise TargetError(
            f"target {without[0]}: has no [memory] with sram_bytes and flash_bytes; give it, or name a microcontroller"
        )
    return {target.name: target.memory for target in targets if target.memory is not None}


def _read_needs(model: Path) -> tuple[FileNeeds, tuple[str, ...]]:
    from edgeprune.core.memory.fit import FileNeeds
    from edgeprune.exporting.tflite.micro import count_arena
    from edgeprune.exporting.tflite.timeline import read_timeline

    content = model.read_bytes()
    timeline = read_timeline(content, str(model))
    say("counting by TensorFlow Lite Micro")
    arena, notes = count_arena(model, timeline)
    return FileNeeds(len(content), arena, timeline), notes


def _find_exit_code(verdicts: Sequence[str]) -> int:
    from edgeprune.core.memory.fit import TOO_BIG, UNKNOWN

    return EXIT_CODES[FAIL] if TOO_BIG in verdicts else EXIT_CODES[INCONCLUSIVE] if UNKNOWN in verdicts else 0


COMMANDS = (fit,)
