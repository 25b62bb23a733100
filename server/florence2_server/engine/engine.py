"""The engine's loop: receive generations, prefill, decode one step, repeat.

In-flight batching: generations join the decode batch between any two decode steps and leave it as soon as they are
complete, whatever their tasks, prompts and lengths. None waits for another to end.
"""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from florence2_server.engine.candidates import CandidateFinder
from florence2_server.engine.change import Change
from florence2_server.engine.embeddings import EmbeddingCache, EmbeddingCacheStatistics
from florence2_server.engine.errors import EngineClosedError
from florence2_server.engine.generation import Generation
from florence2_server.engine.images.decoding import Image
from florence2_server.engine.model.adapter_index import BASE
from florence2_server.engine.model.adapter_tensors import AdapterTensors
from florence2_server.engine.model.runner import Runner
from florence2_server.engine.scheduler import Compaction, Scheduler

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineStatistics:
    """The engine's load, and totals since it was started.

    Attributes:
        waiting: generations that wait for prefill.
        running: generations in the decode batch.
        decode_steps: decode steps of the whole batch.
        decode_rows: rows of all these steps.
        waiting_adapters: names of the adapters of waiting generations, each once.
        running_adapters: names of the adapters of generations in the decode batch, each once.
    """

    waiting: int
    running: int
    decode_steps: int
    decode_rows: int
    waiting_adapters: frozenset[str]
    running_adapters: frozenset[str]


class Engine:
    """Runs generations on a thread of its own. Other threads call `submit` and wait for the generation's future.

    Cancelling a generation's future cancels the generation: its slot is free at the next step.
    """

    def __init__(
        self, runner: Runner, scheduler: Scheduler, candidates: CandidateFinder, embeddings: EmbeddingCache
    ) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._candidates = candidates
        self._embeddings = embeddings
        self._inbox: queue.SimpleQueue[Generation | Change | None] = queue.SimpleQueue()  # None: close
        self._open = True
        self._busy_since: float | None = None  # start of the step under way; None while idle
        self._decode_steps = 0
        self._decode_rows = 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def embedding_statistics(self) -> EmbeddingCacheStatistics:
        """Size and hit counts of the cache of image embeddings."""
        return self._embeddings.statistics

    @property
    def statistics(self) -> EngineStatistics:
        """Load and totals. Thread-safe."""
        waiting = self._scheduler.waiting_count + self._inbox.qsize()
        return EngineStatistics(
            waiting=waiting,
            running=self._scheduler.running_count,
            decode_steps=self._decode_steps,
            decode_rows=self._decode_rows,
            waiting_adapters=_names(self._scheduler.waiting),
            running_adapters=_names(self._scheduler.batch),
        )

    @property
    def is_open(self) -> bool:
        """Whether submitted generations are run: until the engine is closed or its device fails. Thread-safe."""
        return self._open

    @property
    def seconds_without_progress(self) -> float:
        """The duration of the step under way; 0 while the engine is idle. Thread-safe."""
        busy_since = self._busy_since
        return 0.0 if busy_since is None else time.monotonic() - busy_since

    def start(self) -> None:
        """Start the loop."""
        self._thread.start()

    def submit(self, generation: Generation) -> None:
        """Queue a generation. Its future resolves to a Completion or an exception, unless it is cancelled."""
        self._inbox.put(generation)
        if not self._open:  # the loop may have emptied the inbox for the last time
            self._reject_submitted()

    def load_adapter(self, index: int, tensors: AdapterTensors) -> "Future[None]":
        """Make an adapter available to generations that are submitted afterwards.

        Args:
            index: no other adapter has or had it.
            tensors: on the device.

        Returns:
            a future that is done when the adapter is loaded.
        """
        return self._change(partial(self._runner.load_adapter, index, tensors))

    def unload_adapter(self, index: int) -> "Future[None]":
        """Free an adapter; the generations that use it must be done."""
        return self._change(partial(self._unload_adapter, index))

    def close(self) -> None:
        """Stop the loop. Generations that are not complete fail with EngineClosedError."""
        self._inbox.put(None)
        self._thread.join()

    def _change(self, run: Callable[[], None]) -> "Future[None]":
        change = Change(run)
        self._inbox.put(change)
        if not self._open:
            self._reject_submitted()
        return change.done

    def _unload_adapter(self, index: int) -> None:
        self._runner.unload_adapter(index)
        self._embeddings.drop(index)

    def _run(self) -> None:
        try:
            while self._open:
                self._busy_since = None
                self._receive()
                self._busy_since = time.monotonic()
                self._step()
        finally:  # even if the loop itself fails: nothing may wait for an engine that has ended
            self._open = False
            self._receive()
            self._fail(self._scheduler.clear(), EngineClosedError("the engine was stopped"))

    def _receive(self) -> None:
        """Move submitted generations to the scheduler; block while there is nothing else to do."""
        try:
            while True:
                received = self._inbox.get(block=self._open and not self._scheduler)
                match received:
                    case None:
                        self._open = False
                    case Change():
                        received.make()
                    case Generation():
                        self._scheduler.add(received)
        except queue.Empty:
            return

    def _reject_submitted(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                error = EngineClosedError("the engine was stopped")
                match self._inbox.get_nowait():
                    case Generation() as generation:
                        self._fail([generation], error)
                    case Change() as change:
                        change.done.set_exception(error)

    def _step(self) -> None:
        """Prefill what there is room for, or encode images ahead; run a decode step, and finish what is complete."""
        self._compact(self._scheduler.remove_cancelled())
        if scheduled := self._scheduler.schedule():
            self._prefill(scheduled)
        elif images := self._scheduler.images_ahead():
            self._encode_ahead(images)
        completed = self._decode(self._scheduler.batch)
        self._finish(completed)

    def _prefill(self, generations: list[Generation]) -> None:
        """Encode the images and prompts of newly scheduled generations."""
        images: set[Image] = set()
        for generation in generations:
            generation.encode_started = time.monotonic()
            is_encoded = generation.image.embedding is not None and not generation.image.was_ahead
            generation.image_embedding_cached = is_encoded or generation.image in images
            images.add(generation.image)
        for image in images:
            image.was_ahead = False  # the next generations did not cause its encoding
        self._run_prefill(generations)

    def _encode_ahead(self, images: list[Image]) -> None:
        """Encode images of waiting generations, so that less is left to do when these get a slot."""
        for image in images:
            image.was_ahead = True
        try:
            self._encode(images)
        except torch.AcceleratorError:
            raise
        except Exception as error:  # noqa: BLE001 - each image's own prefill will encode it, or fail
            _logger.warning("encoding %d images ahead failed (%r); leaving them to their prefill", len(images), error)

    def _run_prefill(self, generations: list[Generation]) -> None:
        try:
            embeddings = self._encode_images(generations)
            prompts = [generation.prompt_ids for generation in generations]
            self._runner.prefill(generations[0].slot, embeddings, prompts, _adapters_of(generations))
        except torch.AcceleratorError:  # the device is unusable from now on: the process has to be replaced
            raise
        except Exception as error:  # noqa: BLE001 - logged there, and raised where the completion is awaited
            self._isolate(generations, error)
            return
        for generation in generations:
            generation.decode_started = time.monotonic()
            self._embeddings.use(generation.image, generation.image_embedding_cached)

    def _isolate(self, generations: list[Generation], error: Exception) -> None:
        """Retry a failed prefill one by one, so that only the generations at fault fail."""
        if len(generations) == 1:
            _logger.error("the prefill of a generation failed", exc_info=error)
            # This may move a generation that has yet to be retried: its prefill fills whichever slot it then has.
            self._compact(self._scheduler.remove(generations))
            self._fail(generations, error)
            return
        _logger.warning("the prefill of %d generations failed (%r); retrying them one by one", len(generations), error)
        for generation in generations:
            self._run_prefill([generation])

    def _encode_images(self, generations: list[Generation]) -> list[Tensor]:
        """The embedding of each generation's image. Images without one are encoded, each once."""
        images = [generation.image for generation in generations]
        if new := list(dict.fromkeys(image for image in images if image.embedding is None)):
            self._encode(new)
        return [image.embedding for image in images if image.embedding is not None]

    def _encode(self, images: list[Image]) -> None:
        """Encode images, those with the same vision tower together."""
        for adapter in dict.fromkeys(image.adapter for image in images):
            alike = [image for image in images if image.adapter == adapter]
            embeddings = self._runner.encode_images([image.pixels for image in alike], adapter)
            for image, embedding in zip(alike, embeddings, strict=True):
                image.set_embedding(embedding)

    def _decode(self, batch: list[Generation]) -> list[Generation]:
        """Run a decode step. Returns the generations that it completed."""
        if not batch:
            return []
        try:
            self._run_decode_step(batch)
        except torch.AcceleratorError:
            raise
        except Exception as error:
            _logger.exception("a decode step of %d generations failed", len(batch))
            self._scheduler.remove(batch)  # nothing is left that would have to move
            self._fail(batch, error)
            return []
        self._count_step(batch)
        return [generation for generation in batch if generation.search.completion is not None]

    def _run_decode_step(self, batch: list[Generation]) -> None:
        """Extend every beam of every generation by a token."""
        rows = sum(len(generation.rows) for generation in batch)
        token_ids, positions = [0] * rows, [0] * rows
        for generation in batch:
            for row, token_id in zip(generation.rows, generation.search.last_token_ids(), strict=True):
                token_ids[row], positions[row] = token_id, generation.search.generated
        rows_of_slots = [generation.rows for generation in batch]
        logits = self._runner.decode_step(token_ids, positions, rows_of_slots, _adapters_of(batch))
        for generation, candidates in zip(batch, self._candidates.find(logits, batch), strict=True):
            for copy in generation.search.advance(candidates):
                source, target = generation.rows[copy.source], generation.rows[copy.target]
                self._runner.copy_row(source, target, copy.first, generation.search.generated)

    def _count_step(self, batch: list[Generation]) -> None:
        self._decode_steps += 1
        self._decode_rows += sum(len(generation.rows) for generation in batch)
        now = time.monotonic()
        for generation in batch:
            generation.first_token = generation.first_token or now
            generation.report_tokens()

    def _finish(self, generations: list[Generation]) -> None:
        self._compact(self._scheduler.remove(generations))
        for generation in generations:
            generation.finished = time.monotonic()
            completion = generation.search.completion
            assert completion is not None, "only complete generations finish"
            if generation.future.set_running_or_notify_cancel():
                generation.future.set_result(completion)

    def _compact(self, compaction: Compaction) -> None:
        """Move keys and values into the gaps that removed generations left."""
        for move in compaction.slots:
            self._runner.move_slot(move.source, move.target)
        for move, generation in compaction.rows:
            self._runner.copy_row(move.source, move.target, 0, generation.search.generated)

    @staticmethod
    def _fail(generations: Iterable[Generation], error: Exception) -> None:
        for generation in generations:
            if generation.future.set_running_or_notify_cancel():
                generation.future.set_exception(error)


def _names(generations: Iterable[Generation]) -> frozenset[str]:
    return frozenset(generation.adapter.name for generation in generations if generation.adapter is not None)


def _adapters_of(generations: Sequence[Generation]) -> list[int] | None:
    """The adapter of each generation; None if none has one."""
    adapters = [generation.adapter_index for generation in generations]
    return adapters if any(adapter != BASE for adapter in adapters) else None
