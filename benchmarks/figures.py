"""What a measurement gives, and how it is judged."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """What the project promises of a figure: a limit on its value, or on its ratio to the baseline."""

    limit: float
    at_least: bool = False
    """Whether more is better; otherwise the limit is the most that is allowed."""
    of_ratio: bool = False

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        return f"{sign} {self.limit:g} x baseline" if self.of_ratio else f"{sign} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table."""

    name: str
    value: float
    unit: str
    baseline: float | None = None
    """In the same unit, measured interleaved with the value."""
    baseline_name: str = ""
    target: Target | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Value by baseline; `None` without a baseline."""
        return self.value / self.baseline if self.baseline else None

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; `None` where there is none."""
        if self.target is None:
            return None
        measured = self.ratio if self.target.of_ratio else self.value
        if measured is None:
            return False
        return measured >= self.target.limit if self.target.at_least else measured <= self.target.limit


@dataclass(frozen=True, slots=True)
class NotMeasured:
    """A figure that this machine could not give, and why."""

    name: str
    reason: str


Row = Figure | NotMeasured


def at_most(limit: float) -> Target:
    """The value must not be more."""
    return Target(limit)


def at_least(limit: float) -> Target:
    """The value must not be less."""
    return Target(limit, at_least=True)


def median(values: Sequence[float]) -> float:
    """The middle of them. Raises `statistics.StatisticsError` on none."""
    return statistics.median(values)


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that `percent` of them do not exceed, of those that were measured."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def interleaved(rounds: int, *measurements: Callable[[], float]) -> list[float]:
    """The median of each, taken in turns so that whatever else the machine does meets all of them alike."""
    taken: list[list[float]] = [[] for _ in measurements]
    for _ in range(rounds):
        for values, measure in zip(taken, measurements, strict=True):
            values.append(measure())
    return [median(values) for values in taken]
