"""The mass of a token: how much probability the model gave to it, and to locations that are nearly the same.

The mass of any token but a location token is its probability. A model that is sure of a place spreads its probability
over a few neighboring location tokens: the mass of one is the summed probability of those at most `TOLERANCE` bins
away. As for log-probabilities, the probabilities are the model's own, before logits processing.

This is the part of the computation on the host. Imports no torch.
"""

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np

from florence2_server.engine.rules import IntArray
from florence2_server.engine.search import Float32Array, probabilities_of

LOCATIONS: Final = 1000
TOLERANCE: Final = 20
"""How many bins away a location still counts as the same; the protos state it."""

WINDOW: Final = np.arange(-TOLERANCE, TOLERANCE + 1)
"""The bins that belong to a location's mass, relative to it."""


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

    @property
    def columns(self) -> slice:
        """Their columns in the logits."""
        return slice(self.first, self.first + LOCATIONS)


def token_masses(
    token_ids: IntArray, log_probabilities: Float32Array, windows: Float32Array, locations: LocationTokens
) -> Float32Array:
    """The masses of tokens.

    Args:
        token_ids: (rows, candidates).
        log_probabilities: (rows, candidates), their log-probabilities under the model.
        windows: (rows, candidates, WINDOW.size), the log-probabilities of the location tokens at `WINDOW` around each
            token; what is outside of the location tokens, and in the windows of other tokens, does not matter.
        locations: which tokens are locations.

    Returns:
        (rows, candidates), 0 to 1, and at least the token's own probability.
    """
    masses = probabilities_of(log_probabilities)
    bins = token_ids - locations.first
    found = np.nonzero((bins >= 0) & (bins < LOCATIONS))
    if found[0].size:
        neighbors = bins[found][:, None] + WINDOW
        exists = (neighbors >= 0) & (neighbors < LOCATIONS)
        sums = np.where(exists, probabilities_of(windows[found]), 0).sum(axis=1)
        masses[found] = np.clip(sums, masses[found], 1)
    return masses
