"""Exercises the device before the engine reports that it is ready, so that first requests meet no delays or faults."""

import logging
import time

import torch
from torch import Tensor

from florence2_server.engine.checkpoint.loading import Checkpoint
from florence2_server.engine.model.runner import Runner
from florence2_server.engine.scheduler import BatchLimits

_logger = logging.getLogger(__name__)

_CPU_IMAGE_SIDE = 64  # pixels
# Lengths of self-attention, in positions. Graphs for longer completions are recorded when one first gets that long.
_SELF_LENGTHS = (64, 128, 256)


def run_once(runner: Runner, checkpoint: Checkpoint) -> None:
    """Run each device call once on a small empty image, so that a fault shows before the first request.

    This suffices on a CPU, which keeps nothing from one image to the next. A full-size image would take longer than the
    rest of loading.
    """
    size = checkpoint.image_processor.size
    image = _empty_image(min(size["height"], _CPU_IMAGE_SIDE), min(size["width"], _CPU_IMAGE_SIDE))
    (embedding,) = runner.encode_images([image])
    runner.prefill(0, [embedding], [[0]])
    runner.decode_step([0], [0], [[0]])


def record_graphs(runner: Runner, checkpoint: Checkpoint, limits: BatchLimits) -> None:
    """Run what ordinary load will run, so that a GPU reserves its memory and records its graphs now.

    This covers every number of images, and decode steps of every number of generations, greedy and with the
    checkpoint's default number of beams, for completions of up to 256 tokens.
    """
    begin = time.monotonic()
    size = checkpoint.image_processor.size
    image = _empty_image(size["height"], size["width"])
    for images in range(1, limits.image_batch + 1):
        embedding, *_ = runner.encode_images([image] * images)
    for first_slot in range(0, limits.slots, limits.prefill_batch):
        generations = min(limits.prefill_batch, limits.slots - first_slot)
        runner.prefill(first_slot, [embedding] * generations, [[0]] * generations)
    lengths = [min(length, checkpoint.generation.positions.value) for length in _SELF_LENGTHS]
    for beams in sorted({1, checkpoint.generation.num_beams}):
        _record_decode_steps(runner, limits, beams, lengths)
    _logger.info("warmed up in %.1f s", time.monotonic() - begin)


def _empty_image(height: int, width: int) -> Tensor:
    return torch.zeros(3, height, width, dtype=torch.uint8)


def _record_decode_steps(runner: Runner, limits: BatchLimits, beams: int, lengths: list[int]) -> None:
    for generations in range(1, min(limits.slots, limits.rows // beams) + 1):
        rows_of_slots = [list(range(slot * beams, (slot + 1) * beams)) for slot in range(generations)]
        rows = generations * beams
        for length in lengths:
            runner.decode_step([0] * rows, [length - 1] * rows, rows_of_slots)
