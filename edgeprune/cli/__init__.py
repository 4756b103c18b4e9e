"""The command line: parse, call the pipeline, print, exit code. A module for each group of commands.

Nothing may import it. Nothing heavy is imported at the top of its modules, so that `--help` stays quick.
"""

from edgeprune.cli.root import main

__all__ = ["main"]
