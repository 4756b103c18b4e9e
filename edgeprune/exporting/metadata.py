"""What an artifact says of itself, inside the file: where it came from, what it takes and gives."""

from __future__ import annotations

from pathlib import Path

from edgeprune.exporting.files import write_file
from edgeprune.exporting.foreign import foreign
from edgeprune.exporting.formats import Metadata, format_of


def embed_metadata(path: Path, metadata: Metadata) -> None:
    """Write `metadata` into a file, in place of what this function wrote there before.

    Same file and metadata, same bytes. The network itself is not touched.

    Raises:
        ExportError: the file is of no known format, cannot be read, or cannot be written.
    """
    embed = format_of(path).embed
    with foreign("writing metadata", path):
        content = embed(path.read_bytes(), metadata)
    write_file(path, content)


def read_metadata(path: Path) -> dict[str, str]:
    """What :func:`embed_metadata` wrote into a file; empty where it wrote nothing.

    Raises:
        ExportError: the file is of no known format, or cannot be read.
    """
    read = format_of(path).read
    with foreign("reading metadata", path):
        return read(path.read_bytes())
