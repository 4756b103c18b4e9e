"""What a runtime is known to compute wrong: such a file is never shipped to it, whatever a target asks for."""

from __future__ import annotations

from collections.abc import Mapping

from edgeprune.core.formats import RUNTIMES
from edgeprune.core.target import Target
from edgeprune.errors import TargetError

FAULTS = {
    ("tflite-runtime", "int16x8"): "recurrent nets come out as noise there (-2.5 dB, measured with 2.14) and "
    "transformers do not load; use int8, or install ai-edge-litert on the board",
}
"""(package that runs the files, precision) to what goes wrong.

tflite-runtime 2.14 also gives noise (1 to 4 dB) for dynamic-int8 with a scale per channel in fully-connected layers:
no such file is made, theirs have one scale for all (edgeprune.exporting.tflite)."""


def find_provider(runtime: str, versions: Mapping[str, str]) -> str:
    """The package that runs a target's files on a board; `versions` are those of the packages that it has."""
    packages = [package.name for package in RUNTIMES[runtime].packages]
    return next((name for name in packages if name in versions), packages[0] if packages else runtime)


def check_runtime(target: Target, versions: Mapping[str, str]) -> None:
    """Refuse to ship a precision that the board's runtime computes wrong.

    Raises:
        TargetError: it does; says what to do.
    """
    for provider in (find_provider(runtime, versions) for runtime in target.runtimes):
        fault = FAULTS.get((provider, target.precision))
        if fault:
            version = versions.get(provider, "")
            raise TargetError(f"target {target.name}: {target.precision} in {provider} {version}: {fault}")
