"""One request on its way through the engine. Imports no torch."""

import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from florence2_engine.rules import CheckpointRules

if TYPE_CHECKING:
    from florence2_engine.images import Image
    from florence2_engine.search import Search


class FinishReason(Enum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"


class EarlyStopping(Enum):
    """When beam search stops; the values are those of Hugging Face `generate()`'s `early_stopping`."""

    HEURISTIC = False
    FIRST = True
    NEVER = "never"


@dataclass(frozen=True)
class SearchOptions:
    """How an answer is searched: a request's generation options, completed from the checkpoint's own.

    All rules are those of Hugging Face `generate()`; `suppress_bos` is one more entry, `[bos]`, in its `bad_words_ids`.
    """

    max_new_tokens: int
    min_new_tokens: int
    num_beams: int
    length_penalty: float
    early_stopping: EarlyStopping
    no_repeat_ngram_size: int
    repetition_penalty: float
    suppress_bos: bool
    rules: CheckpointRules
    bos_token_id: int
    eos_token_id: int
    decoder_start_token_id: int
    forced_bos_token_id: int | None
    forced_eos_token_id: int | None

    @property
    def never(self) -> frozenset[int]:
        """The tokens that no step may choose unless forced to."""
        return self.rules.never | {self.bos_token_id} if self.suppress_bos else self.rules.never


@dataclass(frozen=True)
class Hypothesis:
    """A whole answer that a search found.

    Attributes:
        token_ids: decoder start token first, then every generated token.
        log_probabilities: of each generated token under the model, before the search's rules.
        finish_reason: STOP where the model ended the answer, LENGTH where it was cut.
    """

    token_ids: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    finish_reason: FinishReason


@dataclass(frozen=True)
class Answer:
    """What the model generated.

    Attributes:
        hypothesis: the answer.
        queue_seconds, encode_seconds, decode_seconds: where the time went; see `florence2.v1.Usage`.
        first_token_seconds: of decode_seconds, until the first token was there.
        image_embedding_cached: the image embedding came from another request.
    """

    hypothesis: Hypothesis
    queue_seconds: float
    encode_seconds: float
    decode_seconds: float
    first_token_seconds: float
    image_embedding_cached: bool


@dataclass(eq=False)
class Request:
    """A prompt about an image, and where it is.

    Attributes:
        image: the decoded image, shared with other requests for the same bytes.
        prompt_ids: the prompt's tokens, start and end token included, image tokens not.
        search: the answer so far.
        received: when it came, in seconds of the monotonic clock.
        future: where the caller waits; it ends with an Answer, an exception, or cancelled.
        rows: the row of the decode batch that each beam is on, while it runs.
    """

    image: "Image"
    prompt_ids: list[int]
    search: "Search"
    received: float = field(default_factory=time.monotonic)
    future: "Future[Answer]" = field(default_factory=Future)
    rows: list[int] = field(default_factory=list)
    image_embedding_cached: bool = False
    encode_started: float = 0.0
    decode_started: float = 0.0
    first_token: float = 0.0

    def answer(self, hypothesis: Hypothesis) -> Answer:
        """The finished answer."""
        return Answer(
            hypothesis=hypothesis,
            queue_seconds=self.encode_started - self.received,
            encode_seconds=self.decode_started - self.encode_started,
            decode_seconds=time.monotonic() - self.decode_started,
            first_token_seconds=self.first_token - self.decode_started,
            image_embedding_cached=self.image_embedding_cached,
        )
