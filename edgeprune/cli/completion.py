"""Completion in the shell: the script that turns it on, and what words can be completed to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

SHELLS = ("bash", "fish", "zsh")
PROGRAM = "edgeprune"
VARIABLE = "_EDGEPRUNE_COMPLETE"
Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that lets SHELL complete commands, options, targets, recipes and run directories.

    Write it where the shell looks for it:

    \b
    bash  ~/.local/share/bash-completion/completions/edgeprune
    zsh   ~/.zfunc/_edgeprune, with fpath+=~/.zfunc before compinit
    fish  ~/.config/fish/completions/edgeprune.fish
    """
    complete_class = get_completion_class(shell)
    if complete_class is None:  # pragma: no cover  (click knows these three)
        raise click.UsageError(f"click knows no completion for {shell}")
    click.echo(complete_class(click.get_current_context().find_root().command, {}, PROGRAM, VARIABLE).source())


def complete_targets(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Targets by name, and .toml files."""
    from edgeprune.shipped import list_targets

    return [*_match(list_targets(), incomplete), *_files(incomplete, ".toml")]


def complete_recipes(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Built-in recipes by name, and .py files."""
    from edgeprune.recipes.built_in import BUILT_IN

    return [*_match(BUILT_IN, incomplete), *_files(incomplete, ".py")]


def complete_runs(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Run directories: those below the folder that is typed, and those in runs/, the newest first."""
    folder = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    places = chain(_list(folder), _list(Path("runs")), _list(folder, "*/budgets/*"))
    runs = {str(place): None for place in places if (place / "request.json").is_file()}
    return [*_match(runs, incomplete), CompletionItem(incomplete, type="dir")]


def complete_hosts(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Boards of devices.toml by name, and this machine."""
    from edgeprune.device.transports.lookup import load_devices
    from edgeprune.errors import EdgepruneError

    try:
        names = list(load_devices())
    except EdgepruneError:
        names = []
    return _match([*names, "local"], incomplete)


def complete_baselines(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Baselines of `baselines/` by name, and run directories."""
    names = [place.name for place in _list(Path("baselines")) if place.is_dir()]
    return [*_match(names, incomplete), *complete_runs(context, parameter, incomplete)]


COMPLETED: dict[str, Complete] = {
    "--target": complete_targets,
    "--recipe": complete_recipes,
    "--run": complete_runs,
    "--host": complete_hosts,
    "--baseline": complete_baselines,
}
"""What completes an option, wherever it stands."""
ARGUMENTS: dict[tuple[str, str], Complete] = {
    ("targets", "name"): complete_targets,
    ("recipes check", "recipe"): complete_recipes,
    ("recipes copy", "name"): complete_recipes,
    ("baseline show", "name"): complete_baselines,
    ("baseline remove", "name"): complete_baselines,
    ("compare", "what"): complete_runs,
    ("history take-in", "directories"): complete_runs,
}
"""What completes an argument, by its command."""


def add_completion(command: click.Command, path: str = "") -> None:
    """Let the options and arguments of a command, and of those below it, be completed."""
    for parameter in command.params:
        complete = ARGUMENTS.get((path, parameter.name or "")) if isinstance(parameter, click.Argument) else None
        for name in parameter.opts:
            complete = complete or COMPLETED.get(name)
        if complete is not None:
            parameter.shell_complete = partial(_complete, complete, parameter)  # type: ignore[method-assign]
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            add_completion(inner, f"{path} {name}".strip())


def _complete(
    complete: Complete, parameter: click.Parameter, context: click.Context, incomplete: str
) -> list[CompletionItem]:
    return complete(context, parameter, incomplete)


def _match(names: Iterable[Any], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if str(name).startswith(incomplete)]


def _files(incomplete: str, suffix: str) -> list[CompletionItem]:
    """Files that end so, and folders to go on in; nothing before a letter is typed, so that names stand alone."""
    if not incomplete:
        return []
    folder = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    names = (
        f"{place}/" if place.is_dir() else str(place)
        for place in _list(folder)
        if place.is_dir() or place.suffix == suffix
    )
    return _match(names, incomplete)


def _list(folder: Path, pattern: str = "*") -> list[Path]:
    try:
        return sorted(folder.glob(pattern), reverse=True)
    except OSError:
        return []
