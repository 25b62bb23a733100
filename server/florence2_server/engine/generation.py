"""The engine's unit of scheduling. Imports no torch."""

import queue
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from florence2_server.engine.adapters.loaded_adapter import LoadedAdapter
from florence2_server.engine.completion import Completion
from florence2_server.engine.model.adapter_index import BASE
from florence2_server.engine.search import CertainTokens, Search

if TYPE_CHECKING:  # it imports torch
    from florence2_server.engine.images.decoding import Image


@dataclass(eq=False)
class Generation:
    """One prompt about one image, with its search and its place in the decode batch.

    All times are in seconds of the monotonic clock.

    Attributes:
        image: the decoded image, shared by all generations about the same bytes.
        prompt_ids: token ids of the prompt, including the start and end token but no image tokens.
        search: the search for the completion.
        received: when the request for it arrived.
        future: resolves to the Completion, or raises; cancelling it cancels the generation.
        slot: its place in the decode batch; -1 while it is not in there.
        rows: the row of each beam in the decode batch; empty while it is not in there.
        adapter: what it is generated with; None: the model as it is.
        image_embedding_cached: whether its image was encoded for another generation.
        encode_started: when its prefill began.
        decode_started: when its prefill was complete.
        first_token: when its first token was chosen.
        finished: when its last token was chosen.
    """

    image: "Image"
    prompt_ids: list[int]
    search: Search
    received: float = field(default_factory=time.monotonic)
    future: "Future[Completion]" = field(default_factory=Future)
    slot: int = -1
    rows: list[int] = field(default_factory=list)
    adapter: LoadedAdapter | None = None
    image_embedding_cached: bool = False
    encode_started: float = 0.0
    decode_started: float = 0.0
    first_token: float = 0.0
    finished: float = 0.0
    _watched: "queue.SimpleQueue[CertainTokens | None] | None" = None

    def watch(self) -> "queue.SimpleQueue[CertainTokens | None]":
        """Have the tokens reported as they become certain; call it before the generation is submitted.

        Returns:
            a queue that receives tokens after the steps that made some certain, and None when the future is done. The
            tokens that it did not receive, at least the last one, are in the completion.
        """
        watched: queue.SimpleQueue[CertainTokens | None] = queue.SimpleQueue()
        self._watched = watched
        self.future.add_done_callback(lambda _: watched.put(None))
        return watched

    def report_tokens(self) -> None:
        """Report the tokens that have become certain, if the generation is watched."""
        if self._watched is not None and (tokens := self.search.take_certain()).token_ids:
            self._watched.put(tokens)

    @property
    def adapter_index(self) -> int:
        """The index of its adapter, or BASE."""
        return BASE if self.adapter is None else self.adapter.index

    @property
    def queue_seconds(self) -> float:
        """Time from arrival to prefill."""
        return self.encode_started - self.received

    @property
    def encode_seconds(self) -> float:
        """Duration of the prefill, including the image's encoding unless that was done ahead."""
        return self.decode_started - self.encode_started

    @property
    def decode_seconds(self) -> float:
        """Duration of decoding."""
        return self.finished - self.decode_started

    @property
    def first_token_seconds(self) -> float:
        """The part of `decode_seconds` before the first token."""
        return self.first_token - self.decode_started
