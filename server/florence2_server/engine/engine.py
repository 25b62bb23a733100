"""The loop: receive, prefill, decode one step, again.

Requests join the decode batch between any two steps and leave it the moment they are done, whatever their task, prompt
and length; nobody waits for anybody else's answer to end.
"""

import logging
import queue
import threading
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from florence2_engine.candidates import CandidateFinder
from florence2_engine.embeddings import EmbeddingCache, EmbeddingCacheFigures
from florence2_engine.errors import EngineClosedError
from florence2_engine.images import Image
from florence2_engine.request import Hypothesis, Request
from florence2_engine.runner import Runner
from florence2_engine.scheduler import Scheduler

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineFigures:
    """What an engine is at, and what it has done since it was started.

    Attributes:
        waiting: requests that wait for prefill.
        running: requests in the decode batch.
        decode_steps: of the whole batch.
        decode_rows: of all those steps together.
    """

    waiting: int
    running: int
    decode_steps: int
    decode_rows: int


class Engine:
    """Answers requests on a thread of its own. Other threads call `submit` and wait for the request's future.

    A request is cancelled by cancelling its future; its slot is free at the next step.
    """

    def __init__(
        self, runner: Runner, scheduler: Scheduler, candidates: CandidateFinder, embeddings: EmbeddingCache
    ) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._candidates = candidates
        self._embeddings = embeddings
        self._inbox: queue.SimpleQueue[Request | None] = queue.SimpleQueue()  # None: close
        self._open = True
        self._busy_since: float | None = None  # when the loop last came around with work; None while it waits for some
        self._decode_steps = 0
        self._decode_rows = 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def embeddings(self) -> EmbeddingCacheFigures:
        """What the cache of image embeddings holds and what it was good for."""
        return self._embeddings.figures

    @property
    def figures(self) -> EngineFigures:
        """What it is at; any thread may ask."""
        waiting = len(self._scheduler.waiting) + self._inbox.qsize()
        return EngineFigures(waiting, len(self._scheduler.running), self._decode_steps, self._decode_rows)

    @property
    def seconds_without_progress(self) -> float:
        """Since the loop last came around with work to do; 0 while there is none. Any thread may ask."""
        busy_since = self._busy_since
        return 0.0 if busy_since is None else time.monotonic() - busy_since

    def start(self) -> None:
        """Start the loop."""
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Queue a request. Its future ends with an Answer, an exception, or cancelled."""
        if self._open:
            self._inbox.put(request)
        else:
            self._fail([request], EngineClosedError("the engine was stopped"))

    def close(self) -> None:
        """Stop the loop; what is under way ends with EngineClosedError."""
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._open:
                self._busy_since = None
                self._receive()
                self._busy_since = time.monotonic()
                self._drop_cancelled()
                self._prefill()
                self._decode()
        finally:  # also when the loop itself is at fault: nobody may wait for an engine that is not there
            self._open = False
            self._receive()
            left = [*self._scheduler.waiting, *self._scheduler.running]
            self._fail(left, EngineClosedError("the engine was stopped"))

    def _receive(self) -> None:
        """Take what has come; sleep until something comes if there is nothing else to do."""
        try:
            while True:
                request = self._inbox.get(block=self._open and not self._scheduler)
                if request is None:
                    self._open = False
                else:
                    self._scheduler.add(request)
        except queue.Empty:
            return

    def _drop_cancelled(self) -> None:
        for request in [request for request in self._scheduler.waiting if request.future.cancelled()]:
            self._scheduler.waiting.remove(request)
        for slot in reversed(range(len(self._scheduler.running))):
            if self._scheduler.running[slot].future.cancelled():
                self._leave(slot)

    def _prefill(self) -> None:
        requests = self._scheduler.next_prefill()
        new: set[Image] = set()
        for request in requests:
            request.encode_started = time.monotonic()
            request.image_embedding_cached = request.image.embedding is not None or request.image in new
            new.add(request.image)
        try:
            self._start(requests)
        except torch.AcceleratorError:  # the device is unusable after that: this engine has to be replaced
            unanswered = [request for request in requests if not (request.rows or request.future.done())]
            self._fail(unanswered, EngineClosedError("the device failed"))
            raise

    def _start(self, requests: list[Request]) -> None:
        """Encode requests and add them to the decode batch; those that cannot be encoded fail."""
        if not requests:
            return
        try:
            embeddings = self._encode_images(requests)
            prompts = [request.prompt_ids for request in requests]
            self._runner.prefill(len(self._scheduler.running), embeddings, prompts)
        except torch.AcceleratorError:
            raise
        except Exception as error:
            if len(requests) == 1:
                _logger.exception("the prefill of a request failed")
                self._fail(requests, error)
                return
            _logger.warning("the prefill of %d requests failed (%r); retrying them one by one", len(requests), error)
            for request in requests:
                self._start([request])
            return
        self._scheduler.start(requests)
        for request in requests:
            request.decode_started = time.monotonic()
            self._embeddings.use(request.image, request.image_embedding_cached)

    def _encode_images(self, requests: list[Request]) -> list[Tensor]:
        """The embedding of each request's image: one computation for each image, however many ask about it."""
        new = {request.image: request.image.pixels for request in requests if request.image.embedding is None}
        if new:
            for image, embedding in zip(new, self._runner.encode_images(list(new.values())), strict=True):
                image.set_embedding(embedding)
        return [request.image.embedding for request in requests if request.image.embedding is not None]

    def _decode(self) -> None:
        running = self._scheduler.running
        if not running:
            return
        try:
            self._step(running)
        except torch.AcceleratorError:
            raise
        except Exception as error:
            _logger.exception("decode step of %d requests failed", len(running))
            self._fail(running, error)
            while running:
                self._scheduler.remove(len(running) - 1)
            return
        self._count_step(running)
        for slot in reversed(range(len(running))):  # from the end: the last request moves into a gap
            if outcome := running[slot].search.outcome:
                self._finish(slot, outcome)

    def _count_step(self, running: list[Request]) -> None:
        self._decode_steps += 1
        self._decode_rows += sum(len(request.rows) for request in running)
        now = time.monotonic()
        for request in running:
            request.first_token = request.first_token or now

    def _step(self, running: list[Request]) -> None:
        """A token for every beam of every request."""
        token_ids, positions = [0] * self._scheduler.rows, [0] * self._scheduler.rows
        for request in running:
            for row, token_id in zip(request.rows, request.search.last_token_ids(), strict=True):
                token_ids[row], positions[row] = token_id, request.search.generated
        logits = self._runner.decode_step(token_ids, positions, [request.rows for request in running])
        for request, candidates in zip(running, self._candidates.find(logits, running), strict=True):
            for copy in request.search.advance(candidates):
                source, target = request.rows[copy.source], request.rows[copy.target]
                self._runner.copy_row(source, target, copy.first, request.search.generated)

    def _finish(self, slot: int, outcome: Hypothesis) -> None:
        request = self._scheduler.running[slot]
        self._leave(slot)
        if request.future.set_running_or_notify_cancel():
            request.future.set_result(request.answer(outcome))

    def _leave(self, slot: int) -> None:
        departure = self._scheduler.remove(slot)
        if departure.slot:
            self._runner.move_slot(departure.slot.source, departure.slot.target)
        for move, request in departure.rows:
            self._runner.copy_row(move.source, move.target, 0, request.search.generated)

    @staticmethod
    def _fail(requests: list[Request], error: Exception) -> None:
        for request in requests:
            if request.future.set_running_or_notify_cancel():
                request.future.set_exception(error)
