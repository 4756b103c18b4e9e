"""The commands that look after what runs have left for one another."""

from __future__ import annotations

import click

from edgeprune.cli.output import json_option, print_result


@click.group()
def cache() -> None:
    """Profiles and scores that runs keep for one another, found again by the hash of all that they hang on.

    They lie in $EDGEPRUNE_CACHE, else ~/.cache/edgeprune, beside data sets and this machine's own board.
    """


@cache.command("list")
@json_option
def list_cache() -> None:
    """List what is kept, its size and when it was made (UTC)."""
    from edgeprune.core.text import make_printable, render_columns
    from edgeprune.shipped import cache_dir
    from edgeprune.stages.memory import list_entries

    rows = [
        {
            "entry": str(entry.path.relative_to(cache_dir())),
            "bytes": entry.bytes,
            "made": make_printable(entry.made_at),
            "of": make_printable(entry.description),
        }
        for entry in list_entries()
    ]
    head = f"{cache_dir()}: {len(rows) or 'nothing'} kept"
    cells = [(str(row["entry"]), f"{row['bytes']:,}", str(row["made"]), str(row["of"])) for row in rows]
    table = [render_columns([("entry", "bytes", "made", "of"), *cells])] if rows else []
    print_result({"directory": cache_dir(), "entries": rows}, "\n".join([head, *table]))


@cache.command("clear")
@json_option
def clear() -> None:
    """Remove what `list` shows, so that the next run measures and scores anew; data sets stay."""
    from edgeprune.stages.memory import clear_cache

    removed_bytes = clear_cache()
    print_result({"removed_bytes": removed_bytes}, f"{removed_bytes:,} bytes removed")


COMMANDS = (cache,)
