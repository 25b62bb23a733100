"""Answers against those that are expected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.load import Outcome

_SHOWN = 60


@dataclass(frozen=True)
class Mismatch:
    """An answer that is not the expected one."""

    where: str
    question: str
    expected: str
    found: str

    def __str__(self) -> str:
        same = next(
            (index for index, (one, other) in enumerate(zip(self.expected, self.found, strict=False)) if one != other),
            min(len(self.expected), len(self.found)),
        )
        return (
            f"{self.where}, {self.question}: the same for {same} characters, then expected "
            f"{self.expected[same : same + _SHOWN]!r}, found {self.found[same : same + _SHOWN]!r}"
        )


def mismatches(where: str, outcomes: Sequence[Outcome], expected: Mapping[str, str]) -> list[Mismatch]:
    """The answers of a measurement that are not the expected ones."""
    return [
        Mismatch(where, outcome.question.name, expected[outcome.question.name], outcome.reply.text)
        for outcome in outcomes
        if outcome.reply.text != expected[outcome.question.name]
    ]
