"""What a recipe judges a net by: the quality figure, with its name, its unit and the direction that is better."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeprune.errors import RecipeError

HIGHER, LOWER = "higher", "lower"
PERCENT = "%"


@dataclass(frozen=True)
class Metric:
    """A figure of quality: `Metric("F1", f1, better="higher")`, `Metric("RMSE", rmse, better="lower", unit="K")`.

    `compute(outputs, targets)` takes arrays, so that it can judge outputs that came from a board; a metric that was
    read back from a report has none. `unit` is "" for a figure without one. `doubt` says why its figures mean nothing,
    as where a recipe has no data but made inputs: no gate on the quality passes then.

    Raises:
        ValueError: no name, a direction that is neither "higher" nor "lower", or a unit that is no text.
    """

    name: str
    compute: Callable[[Any, Any], Any] | None = field(default=None, compare=False, repr=False)
    better: str = field(kw_only=True)
    unit: str = field(default="", kw_only=True)
    doubt: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        """Reject what cannot be meant."""
        if not isinstance(self.name, str) or not self.name.strip() or not self.name.isprintable():
            raise ValueError(f'Metric: name: expected a text such as "F1", found {self.name!r}')
        if self.better not in (HIGHER, LOWER):
            raise ValueError(f'Metric {self.name}: better: expected "higher" or "lower", found {self.better!r}')
        if not isinstance(self.unit, str) or not self.unit.isprintable():
            raise ValueError(f'Metric {self.name}: unit: expected a text such as "K", found {self.unit!r}')

    def __call__(self, outputs: Any, targets: Any) -> Any:
        """What `compute` gives."""
        if self.compute is None:
            raise RecipeError(f"Metric {self.name}: has no function to compute it by")
        return self.compute(outputs, targets)

    @property
    def is_percent(self) -> bool:
        """Whether it is a share of what is right, in percent: what gates on accuracy are for."""
        return self.unit == PERCENT and self.better == HIGHER

    @property
    def label(self) -> str:
        """Its name with its unit, if it has one: `RMSE in K`."""
        return f"{self.name} in {self.unit}" if self.unit else self.name

    @property
    def drop_unit(self) -> str:
        """The unit of a difference of two values: of percentages it is points."""
        return "points" if self.unit == PERCENT else self.unit

    def drop(self, value: float, original: float) -> float:
        """How much worse than the original a value is, in the metric's unit; below zero where it is better."""
        return original - value if self.better == HIGHER else value - original

    def worsen(self, original: float, drop: float) -> float:
        """The value that is so much worse than the original: what :meth:`drop` turned round gives."""
        return original - drop if self.better == HIGHER else original + drop

    def describe(self, value: float | None) -> str:
        """A value with its unit: `91.25 %`, `0.331 K`; `-` where there is none."""
        if value is None:
            return "-"
        return f"{value:.2f} %" if self.unit == PERCENT else f"{value:.4g} {self.unit}".rstrip()

    def to_dict(self) -> dict[str, str]:
        """JSON-ready, without the function."""
        plain = {"name": self.name, "better": self.better, "unit": self.unit}
        return plain | ({"doubt": self.doubt} if self.doubt else {})


TOP1 = Metric("top-1 accuracy", better=HIGHER, unit=PERCENT)
"""What a recipe without a metric of its own is judged by."""


def parse_metric(row: Mapping[str, Any]) -> Metric:
    """Read back what :meth:`Metric.to_dict` gave."""
    return Metric(row["name"], better=row["better"], unit=row["unit"], doubt=row.get("doubt", ""))
