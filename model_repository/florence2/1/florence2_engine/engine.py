"""The loop: receive, prefill, decode one step, again.

Requests join the decode batch between any two steps and leave it the moment they are done, whatever their task, prompt
and length; nobody waits for anybody else's answer to end.
"""

import logging
import queue
import threading
import time

from torch import Tensor

from florence2_engine.errors import EngineClosedError
from florence2_engine.images import Image
from florence2_engine.request import FinishReason, Request
from florence2_engine.runner import Runner
from florence2_engine.scheduler import Scheduler
from florence2_engine.search import choose

_logger = logging.getLogger(__name__)


class Engine:
    """Answers requests on a thread of its own. Other threads call `submit` and wait for the request's future.

    A request is cancelled by cancelling its future; its row is free at the next step.
    """

    def __init__(self, runner: Runner, scheduler: Scheduler) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._inbox: queue.SimpleQueue[Request | None] = queue.SimpleQueue()  # None: close
        self._open = True
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

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
                self._receive()
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
        for row in reversed(range(len(self._scheduler.running))):
            if self._scheduler.running[row].future.cancelled():
                self._free_row(row)

    def _prefill(self) -> None:
        requests = self._scheduler.next_prefill()
        if not requests:
            return
        now = time.monotonic()
        for request in requests:
            request.encode_started = now
        try:
            embeddings = self._encode_images(requests)
            prompts = [request.prompt_ids for request in requests]
            self._runner.prefill(len(self._scheduler.running), embeddings, prompts)
        except Exception as error:
            _logger.exception("prefill of %d requests failed", len(requests))
            self._fail(requests, error)
            return
        self._scheduler.start(requests)
        for request in requests:
            request.decode_started = time.monotonic()

    def _encode_images(self, requests: list[Request]) -> list[Tensor]:
        """The embedding of each request's image: one computation for each image, however many ask about it."""
        new: dict[Image, Tensor] = {}
        for request in requests:
            request.image_embedding_cached = request.image.embedding is not None or request.image in new
            if not request.image_embedding_cached:
                new[request.image] = request.image.pixels
        if new:
            for image, embedding in zip(new, self._runner.encode_images(list(new.values())), strict=True):
                image.embedding = embedding
        return [request.image.embedding for request in requests if request.image.embedding is not None]

    def _decode(self) -> None:
        running = self._scheduler.running
        if not running:
            return
        try:
            logits = self._runner.decode_step(
                [request.token_ids[-1] for request in running], [request.generated for request in running]
            )
            choices = choose(logits, running)
        except Exception as error:
            _logger.exception("decode step of %d requests failed", len(running))
            self._fail(running, error)
            running.clear()
            return
        for row, choice in reversed(list(enumerate(choices))):  # from the end: the last row moves into a gap
            running[row].append(choice.token_id)
            if choice.finish_reason is not None:
                self._finish(row, choice.finish_reason)

    def _finish(self, row: int, reason: FinishReason) -> None:
        request = self._scheduler.running[row]
        self._free_row(row)
        if request.future.set_running_or_notify_cancel():
            request.future.set_result(request.answer(reason))

    def _free_row(self, row: int) -> None:
        if move := self._scheduler.remove(row):
            self._runner.move_row(move.source, move.target, self._scheduler.running[move.target].generated)

    @staticmethod
    def _fail(requests: list[Request], error: Exception) -> None:
        for request in requests:
            if request.future.set_running_or_notify_cancel():
                request.future.set_exception(error)
