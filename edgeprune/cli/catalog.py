"""The commands that list what comes with edgeprune: recipes and targets."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.cli.output import json_option, print_result

if TYPE_CHECKING:
    from edgeprune.core.target import Target


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def recipes(context: click.Context) -> None:
    """List the built-in recipes, or copy one to start from."""
    if context.invoked_subcommand is None:
        from edgeprune.recipes.built_in import describe_built_in

        built_in = describe_built_in()
        print_result(
            {"recipes": [{"name": name, "description": text} for name, text in built_in.items()]},
            "\n".join(f"{name:20} {text}" for name, text in built_in.items()),
        )


@recipes.command("copy")
@click.argument("name")
@click.argument("directory", default=".", type=click.Path(path_type=Path, file_okay=False))
@json_option
def copy_recipe(name: str, directory: Path) -> None:
    """Copy the built-in recipe NAME into DIRECTORY."""
    from edgeprune.recipes.built_in import copy_recipe as copy

    path = copy(name, directory)
    print_result(
        {"name": name, "file": path}, f"{path}: edit it, then `edgeprune deploy --target local --recipe {path}`"
    )


@recipes.command("check")
@click.argument("recipe")
@json_option
def check_recipe(recipe: str) -> None:
    """Check RECIPE, a built-in name or a .py file, and list what of its net can be cut.

    By these names its `widths` may rule which channels stay: {"conv1": "whole", "conv2": {"step": 16, "least": 32}}.
    """
    from edgeprune.core.text import render_columns
    from edgeprune.recipes.load import load_recipe
    from edgeprune.stages.model import list_groups, look_at_recipe

    analysis, notes = look_at_recipe(load_recipe(recipe))
    groups = list_groups(analysis)
    table = render_columns([("group", "channels", "layers that have its width"), *groups])
    rows = [dict(zip(("group", "channels", "layers"), row, strict=True)) for row in groups]
    document = {"recipe": recipe, "groups": rows, "notes": list(notes)}
    print_result(document, "\n".join([table, *(f"note: {note}" for note in notes)]))


@click.command()
@click.argument("name", required=False)
@json_option
def targets(name: str | None) -> None:
    """List the targets, or show one with the source of each hardware fact."""
    from edgeprune.shipped import list_targets, load_target

    kinds = [load_target(key) for key in ([name] if name else list_targets())]
    lines = [line for target in kinds for line in _target_lines(target, bool(name))]
    print_result({"targets": list(map(_target_row, kinds))}, "\n".join(lines))


def _target_lines(target: Target, whole: bool) -> list[str]:
    head = f"{target.name:20} {target.description}"
    if not whole:
        return [head]
    return [
        head,
        f"  runtime {target.runtime}, {target.precision}, {target.threads} thread(s), widths by {target.step}",
        *_memory_lines(target),
        *(f"  gate {gate.describe()}" for gate in target.gates),
        *(f"  {fact.name}: {fact.value} ({fact.source})" for fact in target.hardware),
    ]


def _memory_lines(target: Target) -> list[str]:
    memory = target.memory
    return [f"  memory: {memory.sram_bytes:,} bytes of SRAM, {memory.flash_bytes:,} of flash"] if memory else []


def _target_row(target: Target) -> dict[str, Any]:
    row = {name: getattr(target, name) for name in ("name", "description", "runtime", "precision", "threads", "step")}
    return row | {
        "budget": asdict(target.budget),
        "gates": [gate.to_dict() for gate in target.gates],
        "hardware": [asdict(fact) for fact in target.hardware],
        "memory": asdict(target.memory) if target.memory is not None else None,
    }


COMMANDS = (recipes, targets)
