"""`python -m edgeprune`: the command line, where its script is not on the path."""

from edgeprune.cli import main

main()
