"""Comparing responses with the expected answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.harness.load import Exchange

_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Mismatch:
    """A response that differs from the expected answer."""

    where: str
    request: str
    expected: str
    found: str

    def __str__(self) -> str:
        same = next(
            (index for index, (one, other) in enumerate(zip(self.expected, self.found, strict=False)) if one != other),
            min(len(self.expected), len(self.found)),
        )
        return (
            f"{self.where}, {self.request}: the same for {same} characters, then expected "
            f"{self.expected[same : same + _SHOWN_CHARACTERS]!r}, found {self.found[same : same + _SHOWN_CHARACTERS]!r}"
        )


def mismatches(where: str, exchanges: Sequence[Exchange], expected: Mapping[str, str]) -> list[Mismatch]:
    """The responses of a measurement that differ from the expected answers."""
    return [
        Mismatch(where, exchange.request.name, expected[exchange.request.name], exchange.response.text)
        for exchange in exchanges
        if exchange.response.text != expected[exchange.request.name]
    ]
