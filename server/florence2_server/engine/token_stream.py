"""The tokens of a generation as messages, while it runs."""

import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Iterator

from florence2.v1 import ImageSize

from florence2_server.engine.generation import Generation
from florence2_server.engine.search import CertainTokens
from florence2_server.engine.tokenizer import TokenDecoder
from florence2_server.v1.engine_pb2 import GeneratedTokens

# Each message costs nearly two milliseconds of CPU on its way to the caller, a multiple of a decode step on a GPU, and
# a reader does not see more than fifty a second.
_INTERVAL_SECONDS = 0.02


class TokenStream:
    """Iterates over the tokens of a generation as they become certain, on a thread other than the engine's.

    The messages together are the response's text, log-probabilities, masses and token ends. Iteration ends after the
    last token, when `generation.future` is done; if the generation fails or is cancelled, it raises the future's
    exception. The engine only queues tokens: one message has all that have become certain since the last one. The first
    tokens are yielded at once, further ones at most every 20 ms.

    Args:
        generation: the generation, which is yet to be submitted.
        decoder: decodes its tokens.
    """

    def __init__(self, generation: Generation, decoder: TokenDecoder) -> None:
        self._generation = generation
        self._decoder = decoder
        self._queue = generation.watch()
        self._is_done = is_done = threading.Event()
        generation.future.add_done_callback(lambda _: is_done.set())  # without `self`, which would be a cycle
        self._next_message = 0.0
        width, height = generation.image.size
        self._image_size = ImageSize(width=width, height=height)
        # The text begins with the decoder start token, which is not generated.
        self._start_text, _ = decoder.decode(generation.search.last_token_ids()[:1])

    def __iter__(self) -> Iterator[GeneratedTokens]:
        """Wait for tokens and yield them until there are no more."""
        sent = 0
        while (tokens := self._wait()) is not None:
            sent += len(tokens.token_ids)
            yield self._message(tokens)
        completion = self._generation.future.result()
        last = CertainTokens(
            list(completion.token_ids[1 + sent :]),
            list(completion.log_probabilities[sent:]),
            list(completion.masses[sent:]),
        )
        yield self._message(last, is_last=True)

    def _wait(self) -> CertainTokens | None:
        """Wait for tokens, and return all that are waiting; None once the future is done."""
        received = [self._queue.get()]
        self._is_done.wait(max(0.0, self._next_message - time.monotonic()))
        self._next_message = time.monotonic() + _INTERVAL_SECONDS
        with contextlib.suppress(queue.Empty):
            while True:
                received.append(self._queue.get_nowait())
        tokens = [each for each in received if each is not None]
        if len(tokens) < len(received):
            return None  # those just received are in the completion
        return CertainTokens(*(list(itertools.chain.from_iterable(each)) for each in zip(*tokens, strict=True)))

    def _message(self, tokens: CertainTokens, is_last: bool = False) -> GeneratedTokens:
        text, token_ends = self._decoder.decode(tokens.token_ids, is_last)
        start_text, self._start_text = self._start_text, ""
        return GeneratedTokens(
            text=start_text + text,
            token_log_probabilities=tokens.log_probabilities,
            token_masses=tokens.masses,
            token_ends=token_ends,
            image_size=self._image_size,
        )
