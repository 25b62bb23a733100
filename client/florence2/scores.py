"""How sure the model was of what it wrote.

The model gives every token that it generates a probability. A score is the geometric mean of the probabilities of
the tokens that something in an answer is written in, 0 to 1. It is not calibrated: 0.9 does not mean that nine in
ten such answers are right, and the scores of different tasks or checkpoints do not compare. To choose a threshold,
look at the scores of your own images.

What is written in which tokens:

- Words that are the whole answer (`Text`): in all generated tokens, the end token included.
- A label: in the tokens from its first character to its last; a blank label in all that stands in its place.
- A box or quad: in the tokens from its first location to its last.
- An outline: in the tokens from its first location to its last, the `<sep>` between its polygons included, the
  `<poly>` and `</poly>` around it not.
- An object: in those of its label and of its locations. Objects that share a label share its tokens.

Whatever else the model wrote in between, such as a stray `<s>`, counts with the rest. A token counts whole where any
byte of it belongs, so one that reaches from a label into a location counts for both, and for the object once; and a
letter of several tokens has them all. A token that adds nothing to the text belongs to the character after it.
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
"""Where something begins and ends in a text; it is at least one character long."""

IntArray: TypeAlias = npt.NDArray[np.int64]

# A probability of 1 has a logarithm that rounding may put a little above 0.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class TokenScores:
    """The tokens of an answer: how probable each was, and where it stands in the answer's text.

    Any sequences of numbers are taken; they become tuples.

    Raises:
        InvalidArgumentError: there are no tokens, the fields are not equally long, a log-probability is not finite
            or is above 0, or the ends go backwards.
    """

    log_probabilities: tuple[float, ...]
    """For each generated token its natural log-probability under the model, before any rule of the search
    (forced, too short, repeated) changed it; at most 0."""
    ends: tuple[int, ...]
    """For each generated token the offset in the text at which it ends, in bytes of UTF-8. It begins where the one
    before ends, the first one at 0: that one includes the decoder start token, which no step generates."""

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
            raise InvalidArgumentError.of_field("token_scores.ends", self.ends, "offsets from 0 that never go back")

    @classmethod
    def of_response(cls, response: v1.TaskResponse) -> Self | None:
        """The tokens of a response; None where it says nothing of them.

        Raises:
            InvalidArgumentError: as the constructor.
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
    """The tokens of an answer, found by the characters that are written in them.

    Args:
        token_scores: the tokens.
        text: the generated text, special tokens and all.
        origins: for each character that spans count, its index in `text`: ascending.

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
        # Sums from the first token on: the difference of two is the sum of what lies between, whatever its length.
        self._sums = np.concatenate([[0.0], np.cumsum(np.minimum(token_scores.log_probabilities, 0))])
        self._character_begins, self._character_ends = offsets[origins], offsets[origins + 1]

    def score(self) -> float:
        """The score of all tokens."""
        # Rounded to float32, as all scores are and as the wire has them.
        return float(np.float32(np.exp(self._sums[-1] / len(self._ends))))

    def item_scores(self, labels: Sequence[Span] | None, locations: Sequence[Span]) -> ItemScores:
        """The scores of items.

        Args:
            labels: where their labels are; None where they have none.
            locations: where their locations are, each item's behind its label.
        """
        first, end = self._tokens(locations)
        location_scores = _geometric_means(self._sum(first, end), end - first)
        if labels is None:
            return ItemScores(location_scores.copy(), None, location_scores)
        first_of_label, end_of_label = self._tokens(labels)
        label_sums, label_counts = self._sum(first_of_label, end_of_label), end_of_label - first_of_label
        # A token that reaches from the label into the locations is counted with the label.
        first = np.maximum(first, end_of_label)
        scores = _geometric_means(label_sums + self._sum(first, end), label_counts + end - first)
        return ItemScores(scores, _geometric_means(label_sums, label_counts), location_scores)

    def _tokens(self, spans: Sequence[Span]) -> tuple[IntArray, IntArray]:
        """The first token of each span, and the one behind its last."""
        bounds = np.array(spans, np.int64).reshape(-1, 2)
        begins, ends = self._character_begins[bounds[:, 0]], self._character_ends[bounds[:, 1] - 1]
        first = np.searchsorted(self._begins, begins)
        # The token before begins earlier, but may reach into the span.
        reaches_in = (first > 0) & (self._ends[first - 1] > begins)
        return first - reaches_in, np.searchsorted(self._begins, ends)

    def _sum(self, first: IntArray, end: IntArray) -> npt.NDArray[np.float64]:
        sums: npt.NDArray[np.float64] = self._sums[end] - self._sums[first]
        return sums


def _geometric_means(log_sums: npt.NDArray[np.float64], counts: IntArray) -> Float32Array:
    means: Float32Array = np.exp(log_sums / counts).astype(np.float32)
    return means


def _byte_offsets(text: str) -> IntArray:
    """For each character the offset at which it begins in UTF-8, and at last the length in bytes."""
    # A lone surrogate, which no message can hold but a string can, counts three bytes.
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    lengths = 1 + (points > 0x7F) + (points > 0x7FF) + (points > 0xFFFF)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
