"""The history: every measurement that was made here, in one file, over all runs."""
