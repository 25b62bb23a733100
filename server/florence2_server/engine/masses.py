"""The mass of a token: the probability that the model gave to it and, if it is a location, to its neighbors.

The mass of any token but a location token is its probability. A model that is sure of a place spreads its probability
over a few neighboring location tokens: the mass of one is the summed probability of those at most `TOLERANCE` bins
away. As for log-probabilities, the probabilities are the model's own, before logits processing.

Imports no torch.
"""

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np

from florence2_server.engine.rules import IntArray

LOCATIONS: Final = 1000
TOLERANCE: Final = 20
"""The largest distance, in bins, of the locations that count toward a mass; documented in the protos."""

WINDOW: Final = 2 * TOLERANCE + 1
"""How many locations belong to a location's mass."""


def _windows() -> IntArray:
    bins = np.arange(LOCATIONS)[:, None] + np.arange(-TOLERANCE, TOLERANCE + 1)
    within = np.where((bins >= 0) & (bins < LOCATIONS), bins, LOCATIONS)
    return np.pad(within, [(1, 1), (0, 0)], constant_values=LOCATIONS)


WINDOWS: Final = _windows()
"""(LOCATIONS + 2, WINDOW): the bins in the window of each location. In place of those that do not exist, `LOCATIONS`.
The first row and the last have only these: they are for tokens before and after the location tokens."""


@dataclass(frozen=True)
class LocationTokens:
    """The location tokens, which have consecutive ids.

    Attributes:
        first: the id of `<loc_0>`.
    """

    first: int

    @classmethod
    def of(cls, tokenizer: Any) -> Self | None:
        """Those of a Hugging Face tokenizer; None if it lacks some, or if their ids are not consecutive."""
        vocabulary = tokenizer.get_vocab()
        first = vocabulary.get("<loc_0>")
        ids = [vocabulary.get(f"<loc_{bin_}>") for bin_ in range(LOCATIONS)]
        return None if first is None or ids != list(range(first, first + LOCATIONS)) else cls(first)
