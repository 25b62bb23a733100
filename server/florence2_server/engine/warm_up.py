"""What an engine does before it says that it is ready, so that its first callers neither wait nor find faults."""

import logging
import time

import torch

from florence2_engine.checkpoint.loading import Checkpoint
from florence2_engine.runner import Runner
from florence2_engine.scheduler import Scheduler

_logger = logging.getLogger(__name__)

_SIDE_ON_CPU = 64  # pixels
# Of a beam's own positions: the graphs of decode steps for longer answers are recorded when the first one comes there.
_OWN_LENGTHS = (64, 128, 256)


def run_once(runner: Runner, checkpoint: Checkpoint) -> None:
    """Run each device call once on a small empty image: a fault shows before there are callers.

    This is what a CPU needs. Nothing is kept from one image to the next there, and a full one would take longer than
    all the rest of loading.
    """
    size = checkpoint.image_processor.size
    image = torch.zeros(3, min(size["height"], _SIDE_ON_CPU), min(size["width"], _SIDE_ON_CPU), dtype=torch.uint8)
    (embedding,) = runner.encode_images([image])
    runner.prefill(0, [embedding], [[0]])
    runner.decode_step([0], [0], [[0]])


def record_ordinary_work(runner: Runner, checkpoint: Checkpoint, scheduler: Scheduler) -> None:
    """Run what ordinary load will run, so that a GPU has reserved its memory and recorded its graphs.

    That is every number of images; and decode steps of every number of requests, greedy and with the checkpoint's own
    number of beams, for answers up to 256 tokens.
    """
    begin = time.monotonic()
    size = checkpoint.image_processor.size
    image = torch.zeros(3, size["height"], size["width"], dtype=torch.uint8)
    for images in range(1, scheduler.image_batch + 1):
        embedding, *_ = runner.encode_images([image] * images)
    for first in range(0, scheduler.slots, scheduler.prefill_batch):
        requests = min(scheduler.prefill_batch, scheduler.slots - first)
        runner.prefill(first, [embedding] * requests, [[0]] * requests)
    for beams in sorted({1, checkpoint.generation.num_beams}):
        for running in range(1, min(scheduler.slots, scheduler.row_limit // beams) + 1):
            rows_of_slots = [list(range(slot * beams, (slot + 1) * beams)) for slot in range(running)]
            for length in _OWN_LENGTHS:
                last = min(length, checkpoint.generation.positions.value) - 1
                runner.decode_step([0] * running * beams, [last] * running * beams, rows_of_slots)
    _logger.info("warmed up in %.1f s", time.monotonic() - begin)
