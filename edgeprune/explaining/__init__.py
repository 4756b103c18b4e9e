"""What needs a net or its outputs to be explained: confusions, noise, inputs that excited channels.

The command `explain` comes in; whatever is made here goes into `explanation.json` of a run directory.
"""
