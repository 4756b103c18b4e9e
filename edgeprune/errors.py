"""Every error that edgeprune raises on purpose.

    EdgepruneError              exit code 1
    ├── UsageError              exit code 2: the call itself is wrong
    │   ├── TargetError         a target file: unknown key, bad value, no such target
    │   └── RecipeError         a recipe: missing, raises, wrong shapes, non-finite
    ├── MissingExtra            a library of an extra is not installed
    ├── GraphError              the model cannot be traced or rewritten
    ├── PlanError               a plan does not fit the model
    │   └── InfeasibleBudget    no widths meet the budget; says the best that can be reached
    ├── ExportError             conversion to a deployment format failed
    │   └── ParityError         an artifact does not compute what the model computes
    ├── DeviceError             a board
    │   ├── ConnectionFailed    unreachable, refused, timed out, lost
    │   │   └── HostKeyError    unknown or changed host key
    │   ├── RemoteError         a command or the agent failed on the board
    │   ├── NoSpace             a board's disk is full
    │   └── RuntimeMissing      the inference runtime is not installed there
    ├── ProfileError            a latency table is missing a shape or belongs elsewhere
    ├── HistoryError            the file of the history cannot be used
    ├── BaselineError           a baseline cannot be used, or nothing can be held against it
    └── RunError                a run directory cannot be used or resumed

A message says where, what was found, what was expected and what to do.
"""

from __future__ import annotations


class EdgepruneError(Exception):
    """Base of all; the command line prints its message as one line and exits with `exit_code`."""

    exit_code = 1


class UsageError(EdgepruneError):
    """The call itself is wrong."""

    exit_code = 2


class TargetError(UsageError):
    """A target file cannot be found or is not valid."""


class RecipeError(UsageError):
    """A recipe cannot be loaded or gives something unusable."""


class MissingExtra(EdgepruneError):
    """A library that comes with an extra is not installed."""


class GraphError(EdgepruneError):
    """A model cannot be traced, analysed, rewritten, saved or loaded."""


class PlanError(EdgepruneError):
    """A pruning plan does not fit the model it is applied to."""


class InfeasibleBudget(PlanError):
    """No choice of widths meets the budget."""


class ExportError(EdgepruneError):
    """A conversion to a deployment format failed."""


class ParityError(ExportError):
    """An artifact does not compute what the model computes."""


class DeviceError(EdgepruneError):
    """Something is wrong with or on a board."""


class ConnectionFailed(DeviceError):
    """A board is unreachable, refuses us, or went away."""


class HostKeyError(ConnectionFailed):
    """A board's host key is unknown or has changed."""


class RemoteError(DeviceError):
    """A command or the agent failed on the board."""


class NoSpace(DeviceError):
    """A board's disk is full, or would be."""


class RuntimeMissing(DeviceError):
    """The inference runtime that the target names is not installed on the board."""


class PythonMissing(DeviceError):
    """A board has no Python in which an agent could run."""


class ProfileError(EdgepruneError):
    """A latency table lacks a layer shape, or was made elsewhere."""


class RunError(EdgepruneError):
    """A run directory cannot be used or resumed."""


class HistoryError(EdgepruneError):
    """The history of measurements cannot be read or written."""


class BaselineError(EdgepruneError):
    """A baseline is missing, damaged, or says nothing of the run that is held against it."""
