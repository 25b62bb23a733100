"""The logits processors of Hugging Face `generate()` that forbid tokens. Imports no torch.

Each rule is that of `transformers/generation/logits_process.py`, applied to one generation's beams.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
BeamToken = tuple[int, int]


class ExponentialDecay(NamedTuple):
    """The end token's score gains `factor ** n - 1` times its magnitude, n tokens after the first `start` ones."""

    start: int
    factor: float


class BadEndings(NamedTuple):
    """Bad words of one length: `tokens` (words,) must not follow `prefixes` (words, length - 1)."""

    prefixes: IntArray
    tokens: IntArray


@dataclass(frozen=True)
class CheckpointRules:
    """Logits processing that a checkpoint's generation config sets and that no request can change.

    Attributes:
        encoder_no_repeat_ngram_size: size of the n-grams of the encoder's input that must not be generated; 0: none.
        image_token_id: the image's placeholder token in the encoder's input; None if the layout has no such token.
        exponential_decay: `exponential_decay_length_penalty`.
        bad_words: sequences of tokens that must not be generated.
        suppressed_tokens: tokens that must not be generated.
        begin_suppressed_tokens: tokens that must not be the first token that is not forced.
    """

    encoder_no_repeat_ngram_size: int = 0
    image_token_id: int | None = None
    exponential_decay: ExponentialDecay | None = None
    bad_words: tuple[tuple[int, ...], ...] = ()
    suppressed_tokens: tuple[int, ...] = ()
    begin_suppressed_tokens: tuple[int, ...] = ()

    @cached_property
    def always_forbidden(self) -> frozenset[int]:
        """The tokens that no step may choose."""
        return frozenset(self.suppressed_tokens) | {word[0] for word in self.bad_words if len(word) == 1}

    @cached_property
    def bad_endings(self) -> list[BadEndings]:
        """The bad words of more than one token, by length."""
        words_by_length: dict[int, list[tuple[int, ...]]] = defaultdict(list)
        for word in self.bad_words:
            words_by_length[len(word)].append(word)
        arrays = [np.array(words, np.int64) for length, words in words_by_length.items() if length > 1]
        return [BadEndings(words[:, :-1], words[:, -1]) for words in arrays]

    def end_gain(self, generated: int) -> float:
        """The relative increase of the end token's score after `generated` tokens."""
        if self.exponential_decay is None or generated <= self.exponential_decay.start:
            return 0.0
        try:
            return float(self.exponential_decay.factor ** (generated - self.exponential_decay.start)) - 1
        except OverflowError:
            return float("inf")


def repeating_tokens(token_ids: IntArray, size: int) -> list[BeamToken]:
    """Tokens that would repeat an n-gram.

    Args:
        token_ids: (beams, length), the tokens of each beam.
        size: the size of the n-grams; 0: any may be repeated.
    """
    beams, length = token_ids.shape
    if size == 0 or length < size:
        return []
    windows = length - size + 1
    repeats = np.ones((beams, windows), bool)
    for offset in range(size - 1):
        repeats &= token_ids[:, offset : offset + windows] == token_ids[:, windows + offset, None]
    found, starts = np.nonzero(repeats)
    tokens = token_ids[found, starts + size - 1]
    return list(zip(found.tolist(), tokens.tolist(), strict=True))


def bad_words_completed(token_ids: IntArray, endings: Iterable[BadEndings]) -> list[BeamToken]:
    """Tokens that would complete a bad word; `token_ids` as for `repeating_tokens`."""
    completed: list[BeamToken] = []
    for prefixes, tokens in endings:
        length = prefixes.shape[1]
        if length <= token_ids.shape[1]:
            beams, words = np.nonzero((token_ids[:, None, -length:] == prefixes).all(axis=-1))
            completed += zip(beams.tolist(), tokens[words].tolist(), strict=True)
    return completed


class EncoderNgrams:
    """The n-grams of the encoder's input, which consists of image tokens and the prompt.

    Args:
        size: the size of the n-grams, at least 1.
        image_token_id: see `CheckpointRules`.
        prompt_ids: token ids of the prompt, including the start and end token.
    """

    def __init__(self, size: int, image_token_id: int | None, prompt_ids: Sequence[int]) -> None:
        self._size = size
        # The image's tokens are identical and number in the hundreds: `size` of them yield every n-gram that has any.
        images = [] if image_token_id is None else [image_token_id] * size
        encoder_ids = [*images, *prompt_ids]
        self._endings: dict[tuple[int, ...], set[int]] = defaultdict(set)
        for start in range(len(encoder_ids) - size + 1):
            *prefix, token = encoder_ids[start : start + size]
            self._endings[tuple(prefix)].add(token)

    def completed(self, token_ids: IntArray) -> list[BeamToken]:
        """Tokens that would complete one of these n-grams; `token_ids` as for `repeating_tokens`."""
        start = token_ids.shape[1] - self._size + 1
        if start < 0:
            return []
        last = token_ids[:, start:].tolist()
        return [(beam, token) for beam, tokens in enumerate(last) for token in self._endings.get(tuple(tokens), ())]
