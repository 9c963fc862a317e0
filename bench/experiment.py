"""An experiment: a question, the lines that answer it, and the goal of each as a number that is compared, not read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from idiolect.errors import IdiolectError


class NoSuchMeasure(IdiolectError):
    """A goal names a measure that the value does not have."""

    code = "no_such_measure"


@dataclass(frozen=True)
class Goal:
    """Every number at `measure` must be at least, or at most, `bound`.

    `measure` leads into the value by names between slashes; `*` is every name. True counts as 1.
    """

    measure: str
    how: Literal["<=", ">="]
    bound: float

    def numbers(self, value: Mapping[str, Any]) -> list[float]:
        """What is compared. Raises NoSuchMeasure.

        >>> Goal("*/median", ">=", 1).numbers({"a": {"median": 2}, "b": {"median": [3, 4]}})
        [2.0, 3.0, 4.0]
        """
        found = list(_numbers(_inside(value, self.measure.split("/"))))
        if not found:
            raise NoSuchMeasure(f"no number at {self.measure}")
        return found

    def met(self, value: Mapping[str, Any]) -> bool:
        """Raises NoSuchMeasure."""
        return all(n <= self.bound if self.how == "<=" else n >= self.bound for n in self.numbers(value))

    def worst(self, value: Mapping[str, Any]) -> float:
        """The number that is farthest from the goal. Raises NoSuchMeasure."""
        return (max if self.how == "<=" else min)(self.numbers(value))

    def __str__(self) -> str:
        return f"{self.measure} {self.how} {self.bound:g}"


@dataclass(frozen=True)
class Line:
    """One answer: what is claimed, and what must hold for the claim to be met. Without goals it is only reported."""

    id: str
    question: str
    goals: tuple[Goal, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """A command that measures one or several lines, and what it needs: minutes here, and data or hardware."""

    name: str
    command: str
    lines: tuple[Line, ...]
    minutes: float
    needs: str = ""
    module: str | None = None
    """What `python -m bench run NAME` runs; None for lines that tests measure."""


def at_least(measure: str, bound: float) -> Goal:
    return Goal(measure, ">=", bound)


def at_most(measure: str, bound: float) -> Goal:
    return Goal(measure, "<=", bound)


def _inside(value: Any, names: list[str]) -> Iterator[Any]:
    if not names:
        yield value
    elif names[0] == "*":
        for each in value.values():
            yield from _inside(each, names[1:])
    elif isinstance(value, Mapping) and names[0] in value:
        yield from _inside(value[names[0]], names[1:])


def _numbers(found: Any) -> Iterator[float]:
    for each in found:
        if isinstance(each, int | float):
            yield float(each)
        elif isinstance(each, Mapping):
            yield from _numbers(each.values())
        elif isinstance(each, list | tuple):
            yield from _numbers(each)
