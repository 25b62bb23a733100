"""How confident the model was in the parts of its answer.

A score is the geometric mean, 0 to 1, of the probabilities that the model gave to the tokens of a part of its answer.
It is not calibrated: 0.9 does not mean that nine in ten such answers are right, and scores of different tasks or
checkpoints are not comparable. To choose a threshold, look at the scores of your own images.

The tokens of each part:

- A text that is the complete answer (`Text`): all generated tokens, including the end token.
- A label: from its first character to its last; for a blank label, everything in its place.
- A box or quad: from its first location to its last.
- An outline: from its first location to its last, including the `<sep>` between its polygons, but not the `<poly>` and
  `</poly>` around it.
- An object: those of its label and of its locations. Objects that share a label share its tokens.

Anything else that the model generated in between, such as a stray `<s>`, is included. A token counts completely if any
of its bytes belongs to the part: a token that extends from a label into a location counts for both, and once for the
object; a letter that consists of several tokens has all of them. A token that adds nothing to the text belongs to the
next character.
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

IntArray: TypeAlias = npt.NDArray[np.int64]

# Rounding may make the logarithm of a probability of 1 slightly positive.
_ROUNDING = 1e-3
# Far below the precision of a score, which is a float32. Sums of up to two million are exact.
_SMALLEST_TERM = 2.0**-32


@dataclass(frozen=True)
class TokenScores:
    """The log-probabilities of an answer's tokens, and their positions in its text.

    Any sequences of numbers are accepted and converted to tuples.

    Raises:
        InvalidArgumentError: there are no tokens, the fields differ in length, a log-probability is not finite or is
            above 0, or the ends are not in ascending order.
    """

    log_probabilities: tuple[float, ...]
    """The natural log-probability of each generated token under the model, before logits processing (forced tokens,
    minimum length, repetition); at most 0."""
    ends: tuple[int, ...]
    """The offset in the text at which each generated token ends, in bytes of UTF-8. A token begins where the previous
    one ends. The first one begins at 0: it includes the decoder start token, which is not generated."""

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

    @classmethod
    def of_response(cls, response: v1.TaskResponse) -> Self | None:
        """The tokens of a response; None if it contains no log-probabilities.

        Raises:
            InvalidArgumentError: as for the constructor.
        """
        if not response.token_log_probabilities and not response.token_ends:
            return None
        return cls(tuple(response.token_log_probabilities), tuple(response.token_ends))


class ItemScores(NamedTuple):
    """The scores of N items of a result, each of shape (N,)."""

    scores: Float32Array
    label_scores: Float32Array | None
    location_scores: Float32Array


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
        # Cumulative sums: the sum over any range of tokens is the difference of two of them. They are exact, and so do
        # not depend on the part of the answer that was decoded, because every term is a multiple of a power of two.
        terms = np.round(np.minimum(token_scores.log_probabilities, 0) / _SMALLEST_TERM) * _SMALLEST_TERM
        self._sums = np.concatenate([[0.0], np.cumsum(terms)])
        self._character_begins, self._character_ends = offsets[origins], offsets[origins + 1]

    def score(self) -> float:
        """The score of all tokens."""
        # Rounded to float32, like all scores and like those of the messages.
        return float(np.float32(np.exp(self._sums[-1] / len(self._ends))))

    def item_scores(self, labels: Sequence[Span] | None, locations: Sequence[Span]) -> ItemScores:
        """The scores of items.

        Args:
            labels: the spans of their labels; None if they have no labels.
            locations: the spans of their locations, each after its item's label.
        """
        first, end = self._tokens(locations)
        location_scores = _geometric_means(self._sum(first, end), end - first)
        if labels is None:
            return ItemScores(location_scores.copy(), None, location_scores)
        first_of_label, end_of_label = self._tokens(labels)
        label_sums, label_counts = self._sum(first_of_label, end_of_label), end_of_label - first_of_label
        # A token that extends from the label into the locations is counted with the label.
        first = np.maximum(first, end_of_label)
        scores = _geometric_means(label_sums + self._sum(first, end), label_counts + end - first)
        return ItemScores(scores, _geometric_means(label_sums, label_counts), location_scores)

    def _tokens(self, spans: Sequence[Span]) -> tuple[IntArray, IntArray]:
        """The index of each span's first token, and the index after its last."""
        bounds = np.array(spans, np.int64).reshape(-1, 2)
        begins, ends = self._character_begins[bounds[:, 0]], self._character_ends[bounds[:, 1] - 1]
        first = np.searchsorted(self._begins, begins)
        # The previous token begins before the span, but may extend into it.
        reaches_in = (first > 0) & (self._ends[first - 1] > begins)
        return first - reaches_in, np.searchsorted(self._begins, ends)

    def _sum(self, first: IntArray, end: IntArray) -> npt.NDArray[np.float64]:
        sums: npt.NDArray[np.float64] = self._sums[end] - self._sums[first]
        return sums


def _geometric_means(log_sums: npt.NDArray[np.float64], counts: IntArray) -> Float32Array:
    means: Float32Array = np.exp(log_sums / counts).astype(np.float32)
    return means


def _byte_offsets(text: str) -> IntArray:
    """The offset in UTF-8 at which each character begins, and finally the length in bytes."""
    # A lone surrogate, which is possible in a string but not in a message, counts as three bytes.
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    lengths = 1 + (points > 0x7F) + (points > 0x7FF) + (points > 0xFFFF)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
