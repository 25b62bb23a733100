"""The model's confidence in the parts of its answer: scores, and likelihoods.

Both are between 0 and 1. Every generated token has a probability under the model, before logits processing, and a mass.
The mass of a location token `<loc_k>` is the summed probability of the locations at most 20 bins, which are 2 % of the
image's side, away from k: a model that is sure of a place spreads its probability over neighboring locations. The mass
of any other token is its probability.

Scores are for thresholds: of the items with scores around 0.9, about nine in ten should be right. How well that holds
depends on the checkpoint and the images; `docs/scores.md` has measurements, and the command that makes them.

- A location's score is the geometric mean of the masses of its tokens, to the power of four. For a box that is the
  product of its four masses: the probability that all four sides lie within the tolerance. Quads and outlines have more
  coordinates than a box, but their scores are comparable.
- A label's score is the geometric mean of the masses of its tokens, so that long labels are not at a disadvantage.
- The score of an object or a text region is the geometric mean of its label's and its location's score, not the
  product: both are lower if the model is unsure which object comes next. Without a label it is the location's score.
- The score of a text that is the complete answer (`Text`) is the geometric mean of the masses of its tokens.

A likelihood is the geometric mean of the probabilities of the tokens: of a label, of a location, of both together, or
of a complete answer. Likelihoods of boxes are low, because locations share their probability with their neighbors.

The tokens of each part:

- A text that is the complete answer (`Text`): all generated tokens, including the end token.
- A label: from its first character to its last; for a blank label, everything in its place.
- A box or quad: from its first location to its last.
- An outline: from its first location to its last, including the `<sep>` between its polygons, but not the `<poly>` and
  `</poly>` around it.
- An object's likelihood: those of its label and of its locations. Objects that share a label share its tokens.

Anything else that the model generated in between, such as a stray `<s>`, is included. A token counts completely if any
of its bytes belongs to the part: a token that extends from a label into a location counts for both, and once for the
object's likelihood; a letter that consists of several tokens has all of them. A token that adds nothing to the text
belongs to the next character.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from florence2 import v1
from florence2.errors import InvalidArgumentError
from florence2.results import Float32Array

Span: TypeAlias = tuple[int, int]
"""Start and end of a part of a text, at least one character long."""

_Triple: TypeAlias = tuple[Float32Array | None, Float32Array | None, Float32Array | None]

IntArray: TypeAlias = npt.NDArray[np.int64]
Float64Array: TypeAlias = npt.NDArray[np.float64]

# Rounding may make the logarithm of a probability of 1 slightly positive.
_ROUNDING = 1e-3
# Far below the precision of a score, which is a float32. Sums of up to two million are exact.
_SMALLEST_TERM = 2.0**-32
# The mass of an impossible token, which has no logarithm, counts as the smallest number of full float32 precision.
_SMALLEST_MASS = 2.0**-126
# The number of a box's coordinates: a location with more of them counts as much as a box.
_SIDES = 4


@dataclass(frozen=True)
class TokenScores:
    """The log-probabilities and masses of an answer's tokens, and their positions in its text.

    Any sequences of numbers are accepted and converted to tuples.

    Raises:
        InvalidArgumentError: there are no tokens, the fields differ in length, a log-probability is not finite or is
            above 0, the ends are not in ascending order, or a mass is not between 0 and 1.
    """

    log_probabilities: tuple[float, ...]
    """The natural log-probability of each generated token under the model, before logits processing (forced tokens,
    minimum length, repetition); at most 0."""
    ends: tuple[int, ...]
    """The offset in the text at which each generated token ends, in bytes of UTF-8. A token begins where the previous
    one ends. The first one begins at 0: it includes the decoder start token, which is not generated."""
    masses: tuple[float, ...] | None = None
    """The mass of each generated token, 0 to 1. None if unknown, as from older servers: then there are likelihoods, but
    no scores."""

    def __post_init__(self) -> None:
        log_probabilities = np.asarray(self.log_probabilities, np.float64)
        ends = np.asarray(self.ends, np.int64)
        object.__setattr__(self, "log_probabilities", tuple(log_probabilities.tolist()))
        object.__setattr__(self, "ends", tuple(ends.tolist()))
        if len(ends) == 0 or ends.shape != log_probabilities.shape:
            limits = f"one for each of {len(log_probabilities)} log-probabilities, and at least one"
            raise InvalidArgumentError.of_field("token_scores.ends", self.ends, limits)
        possible = np.isfinite(log_probabilities) & (log_probabilities <= _ROUNDING)
        if not possible.all():
            first = log_probabilities[~possible][0].item()
            raise InvalidArgumentError.of_field("token_scores.log_probabilities", first, "finite numbers, at most 0")
        if np.diff(ends, prepend=0).min() < 0:
            raise InvalidArgumentError.of_field("token_scores.ends", self.ends, "offsets in ascending order, from 0")
        if self.masses is not None:
            self._check_masses(np.asarray(self.masses, np.float64))

    def _check_masses(self, masses: npt.NDArray[np.float64]) -> None:
        object.__setattr__(self, "masses", tuple(masses.tolist()))
        if len(masses) != len(self.ends):
            limits = f"one for each of {len(self.ends)} log-probabilities"
            raise InvalidArgumentError.of_field("token_scores.masses", self.masses, limits)
        possible = (masses >= 0) & (masses <= 1 + _ROUNDING)  # not of a NaN
        if not possible.all():
            raise InvalidArgumentError.of_field("token_scores.masses", masses[~possible][0].item(), "0 to 1")

    @classmethod
    def of_response(cls, response: v1.TaskResponse) -> Self | None:
        """The tokens of a response; None if it contains no log-probabilities.

        Raises:
            InvalidArgumentError: as for the constructor.
        """
        log_probabilities, ends = response.token_log_probabilities, response.token_ends
        masses = tuple(response.token_masses) or None
        return cls(tuple(log_probabilities), tuple(ends), masses) if log_probabilities or ends or masses else None


class ItemScores(NamedTuple):
    """The scores and likelihoods of N items of a result, each of shape (N,); those of labels None without labels.

    All scores are None if the masses of the tokens are unknown.
    """

    scores: Float32Array | None
    label_scores: Float32Array | None
    location_scores: Float32Array | None
    likelihoods: Float32Array
    label_likelihoods: Float32Array | None
    location_likelihoods: Float32Array


class _Tokens(NamedTuple):
    """A range of tokens for each of N parts of an answer, each of shape (N,)."""

    first: IntArray
    end: IntArray

    @property
    def counts(self) -> IntArray:
        return self.end - self.first


class _LogSums:
    """Sums and means of the logarithms of the tokens' probabilities or masses."""

    def __init__(self, logarithms: npt.ArrayLike) -> None:
        # Cumulative sums: the sum over any range of tokens is the difference of two of them. They are exact, and so do
        # not depend on the part of the answer that was decoded, because every term is a multiple of a power of two.
        terms = np.round(np.minimum(logarithms, 0) / _SMALLEST_TERM) * _SMALLEST_TERM
        self._sums = np.concatenate([[0.0], np.cumsum(terms)])

    def sums(self, tokens: _Tokens) -> Float64Array:
        sums: Float64Array = self._sums[tokens.end] - self._sums[tokens.first]
        return sums

    def means(self, tokens: _Tokens) -> Float64Array:
        return self.sums(tokens) / tokens.counts

    def mean_of_all(self) -> float:
        """The geometric mean of all tokens, as a float32."""
        return float(np.float32(np.exp(self._sums[-1] / (len(self._sums) - 1))))


class AnswerTokens:
    """The tokens of an answer, by the characters of its parsed text.

    Args:
        token_scores: the tokens.
        text: the generated text, including special tokens.
        origins: the index in `text` of each character of the parsed text, which spans refer to; ascending.

    Raises:
        InvalidArgumentError: the last token does not end where the text ends.
    """

    def __init__(self, token_scores: TokenScores, text: str, origins: IntArray) -> None:
        offsets = _byte_offsets(text)
        if token_scores.ends[-1] != offsets[-1]:
            raise InvalidArgumentError.of_field(
                "token_scores.ends", token_scores.ends, f"the last one at the text's end, {offsets[-1]} bytes of UTF-8"
            )
        self._ends = np.array(token_scores.ends)
        self._begins = np.concatenate([[0], self._ends[:-1]])
        self._probabilities = _LogSums(token_scores.log_probabilities)
        masses = token_scores.masses
        self._masses = None if masses is None else _LogSums(np.log(np.maximum(masses, _SMALLEST_MASS)))
        self._character_begins, self._character_ends = offsets[origins], offsets[origins + 1]

    def score(self) -> float | None:
        """The score of the complete answer; None if the masses are unknown."""
        return None if self._masses is None else self._masses.mean_of_all()

    def likelihood(self) -> float:
        """The likelihood of the complete answer."""
        return self._probabilities.mean_of_all()

    def item_scores(self, labels: Sequence[Span] | None, locations: Sequence[Span]) -> ItemScores:
        """The scores and likelihoods of items.

        Args:
            labels: the spans of their labels; None if they have no labels.
            locations: the spans of their locations, each after its item's label.
        """
        of_locations = self._tokens(locations)
        of_labels = None if labels is None else self._tokens(labels)
        scores: _Triple = (None, None, None)
        if self._masses is not None:
            scores = _scores(self._masses, of_labels, of_locations)
        return ItemScores(*scores, *_likelihoods(self._probabilities, of_labels, of_locations))

    def _tokens(self, spans: Sequence[Span]) -> _Tokens:
        """The index of each span's first token, and the index after its last."""
        bounds = np.array(spans, np.int64).reshape(-1, 2)
        begins, ends = self._character_begins[bounds[:, 0]], self._character_ends[bounds[:, 1] - 1]
        first = np.searchsorted(self._begins, begins)
        # The previous token begins before the span, but may extend into it.
        reaches_in = (first > 0) & (self._ends[first - 1] > begins)
        return _Tokens(first - reaches_in, np.searchsorted(self._begins, ends))


def _scores(
    masses: _LogSums, labels: _Tokens | None, locations: _Tokens
) -> tuple[Float32Array, Float32Array | None, Float32Array]:
    """The scores of items, of their labels and of their locations."""
    of_locations = _SIDES * masses.means(locations)
    location_scores = _rounded(of_locations)
    if labels is None:
        return location_scores.copy(), None, location_scores
    of_labels = masses.means(labels)
    return _rounded((of_labels + of_locations) / 2), _rounded(of_labels), location_scores


def _likelihoods(
    probabilities: _LogSums, labels: _Tokens | None, locations: _Tokens
) -> tuple[Float32Array, Float32Array | None, Float32Array]:
    """The likelihoods of items, of their labels and of their locations."""
    of_locations = _rounded(probabilities.means(locations))
    if labels is None:
        return of_locations.copy(), None, of_locations
    # A token that extends from the label into the locations is counted with the label.
    others = _Tokens(np.maximum(locations.first, labels.end), locations.end)
    sums = probabilities.sums(labels) + probabilities.sums(others)
    return _rounded(sums / (labels.counts + others.counts)), _rounded(probabilities.means(labels)), of_locations


def _rounded(logarithms: Float64Array) -> Float32Array:
    """The numbers with these logarithms. All scores are float32, like those of the messages."""
    numbers: Float32Array = np.exp(logarithms).astype(np.float32)
    return numbers


def _byte_offsets(text: str) -> IntArray:
    """The offset in UTF-8 at which each character begins, and finally the length in bytes."""
    # A lone surrogate, which is possible in a string but not in a message, counts as three bytes.
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    lengths = 1 + (points > 0x7F) + (points > 0x7FF) + (points > 0xFFFF)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
