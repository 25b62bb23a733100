"""One request on its way through the engine. Imports no torch."""

import time
from collections import defaultdict
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from florence2_engine.images import Image


class FinishReason(Enum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True)
class SearchOptions:
    """How an answer is searched: a request's generation options, completed from the checkpoint's own.

    Token rules are those of Hugging Face `generate()`; `suppress_bos` is its `bad_words_ids=[[bos]]`.
    """

    max_new_tokens: int
    min_new_tokens: int
    no_repeat_ngram_size: int
    suppress_bos: bool
    bos_token_id: int
    eos_token_id: int
    decoder_start_token_id: int
    forced_bos_token_id: int | None
    forced_eos_token_id: int | None


@dataclass(frozen=True)
class Answer:
    """What the model generated.

    Attributes:
        token_ids: decoder start token first, then every generated token.
        finish_reason: STOP where the model ended its answer, LENGTH where it was cut.
        queue_seconds, encode_seconds, decode_seconds: where the time went; see `florence2.v1.Usage`.
        image_embedding_cached: the image embedding came from another request.
    """

    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    queue_seconds: float
    encode_seconds: float
    decode_seconds: float
    image_embedding_cached: bool


@dataclass(eq=False)
class Request:
    """A prompt about an image, and the answer so far.

    Attributes:
        image: the decoded image, shared with other requests for the same bytes.
        prompt_ids: the prompt's tokens, start and end token included, image tokens not.
        options: how the answer is searched.
        future: where the caller waits; it ends with an Answer, an exception, or cancelled.
        token_ids: decoder start token, then the tokens generated so far.
    """

    image: "Image"
    prompt_ids: list[int]
    options: SearchOptions
    received: float = field(default_factory=time.monotonic)
    future: "Future[Answer]" = field(default_factory=Future)
    token_ids: list[int] = field(init=False)
    image_embedding_cached: bool = False
    encode_started: float = 0.0
    decode_started: float = 0.0
    _followers: dict[tuple[int, ...], list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.token_ids = [self.options.decoder_start_token_id]
        self._followers = defaultdict(list)
        self._remember_ngram()

    @property
    def generated(self) -> int:
        """Number of tokens generated so far."""
        return len(self.token_ids) - 1

    def append(self, token_id: int) -> None:
        """Add a generated token."""
        self.token_ids.append(token_id)
        self._remember_ngram()

    def repeating_tokens(self) -> list[int]:
        """Tokens that would complete an n-gram for the second time, with n the option `no_repeat_ngram_size`."""
        size = self.options.no_repeat_ngram_size
        if size == 0 or len(self.token_ids) < size:
            return []
        return self._followers.get(tuple(self.token_ids[len(self.token_ids) + 1 - size :]), [])

    def _remember_ngram(self) -> None:
        # Kept up to date token by token: looking through the whole answer at every step would cost its square.
        size = self.options.no_repeat_ngram_size
        if size and len(self.token_ids) >= size:
            *prefix, last = self.token_ids[-size:]
            self._followers[tuple(prefix)].append(last)

    def answer(self, finish_reason: FinishReason) -> Answer:
        """The finished answer."""
        now = time.monotonic()
        return Answer(
            token_ids=tuple(self.token_ids),
            finish_reason=finish_reason,
            queue_seconds=self.encode_started - self.received,
            encode_seconds=self.decode_started - self.encode_started,
            decode_seconds=now - self.decode_started,
            image_embedding_cached=self.image_embedding_cached,
        )
