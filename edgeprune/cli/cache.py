"""The commands that look after what runs have left for one another."""

from __future__ import annotations

import click


@click.group()
def cache() -> None:
    """Profiles and scores that runs keep for one another, found again by the hash of all that they hang on.

    They lie in $EDGEPRUNE_CACHE, else ~/.cache/edgeprune, beside data sets and this machine's own board.
    """


@cache.command("list")
def list_cache() -> None:
    """List what is kept, its size and when it was made (UTC)."""
    from edgeprune.core.text import make_printable, render_columns
    from edgeprune.shipped import cache_dir
    from edgeprune.stages.memory import list_entries

    rows = [
        (
            str(entry.path.relative_to(cache_dir())),
            f"{entry.bytes:,}",
            make_printable(entry.made_at),
            make_printable(entry.description),
        )
        for entry in list_entries()
    ]
    click.echo(f"{cache_dir()}: {len(rows) or 'nothing'} kept")
    if rows:
        click.echo(render_columns([("entry", "bytes", "made", "of"), *rows]))


@cache.command("clear")
def clear() -> None:
    """Remove what `list` shows, so that the next run measures and scores anew; data sets stay."""
    from edgeprune.stages.memory import clear_cache

    click.echo(f"{clear_cache():,} bytes removed")


COMMANDS = (cache,)
