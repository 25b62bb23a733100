"""Percentiles, and figures over several rounds."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np


def percentile(values: Sequence[float], percent: float) -> float:
    """A percentile, interpolated linearly between the nearest ranks."""
    return float(np.percentile(values, percent))


@dataclass(frozen=True)
class Spread:
    """A figure's median, minimum and maximum over rounds."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of one value per round."""
        return cls(median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.least:.3g} to {self.greatest:.3g})"

    def verdict(self, at_most: float) -> str:
        """The spread, and whether its median meets a target."""
        return f"{self}, target at most {at_most:g}: {'met' if self.median <= at_most else 'missed'}"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """The spread of ours / theirs per round, which cancels what changed between rounds, such as the clock speed."""
    return Spread.of([our / their for our, their in zip(ours, theirs, strict=True)])
