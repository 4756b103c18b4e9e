"""The commands that list what comes with edgeprune: recipes and targets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgeprune.core.target import Target


@click.group(invoke_without_command=True)
@click.pass_context
def recipes(context: click.Context) -> None:
    """List the built-in recipes, or copy one to start from."""
    if context.invoked_subcommand is None:
        from edgeprune.recipes.load import describe_built_in

        for name, text in describe_built_in().items():
            click.echo(f"{name:18} {text}")


@recipes.command("copy")
@click.argument("name")
@click.argument("directory", default=".", type=click.Path(path_type=Path, file_okay=False))
def copy_recipe(name: str, directory: Path) -> None:
    """Copy the built-in recipe NAME into DIRECTORY."""
    from edgeprune.recipes.load import copy_recipe as copy

    path = copy(name, directory)
    click.echo(f"{path}: edit it, then `edgeprune deploy --target local --recipe {path}`")


@recipes.command("check")
@click.argument("recipe")
def check_recipe(recipe: str) -> None:
    """Check RECIPE, a built-in name or a .py file, and list what of its net can be cut.

    By these names its `widths` may rule which channels stay: {"conv1": "whole", "conv2": {"step": 16, "least": 32}}.
    """
    from edgeprune.core.text import render_columns
    from edgeprune.recipes.load import load_recipe
    from edgeprune.stages.model import list_groups, look_at_recipe

    analysis, notes = look_at_recipe(load_recipe(recipe))
    click.echo(render_columns([("group", "channels", "layers that have its width"), *list_groups(analysis)]))
    for note in notes:
        click.echo(f"note: {note}")


@click.command()
@click.argument("name", required=False)
def targets(name: str | None) -> None:
    """List the targets, or show one with the source of each hardware fact."""
    from edgeprune.shipped import list_targets, load_target

    for key in [name] if name else list_targets():
        target = load_target(key)
        click.echo(f"{target.name:18} {target.description}")
        if name:
            _show_target(target)


def _show_target(target: Target) -> None:
    click.echo(f"  runtime {target.runtime}, {target.precision}, {target.threads} thread(s), widths by {target.step}")
    for gate_ in target.gates:
        click.echo(f"  gate {gate_.describe()}")
    for fact in target.hardware:
        click.echo(f"  {fact.name}: {fact.value} ({fact.source})")


COMMANDS = (recipes, targets)
