"""`python -m edgeprune.cli`."""

from edgeprune.cli import main

main()
