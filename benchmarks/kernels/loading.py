"""Loading a checkpoint into a ready engine, beside `from_pretrained` of model and processor.

Both run in one process, which excludes the import of torch and transformers, and with a warm page cache.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from florence2_server.config import EngineConfig
from florence2_server.engine.build import build
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from benchmarks.harness.device import EXACT_DTYPE, clock, place


def run(checkpoint: Path, rounds: int, on_round: Callable[[], None]) -> list[dict[str, Any]]:
    """Load both ways in alternation.

    Args:
        checkpoint: its folder.
        rounds: number of measurements of each.
        on_round: called after each round.

    Returns:
        One load; for each round and side the seconds.
    """
    sides = {"ours": _load_engine, "from_pretrained": _load_pretrained}
    _load_pretrained(checkpoint)  # warms the page cache
    measured = []
    for _ in range(rounds):
        measured.append({side: {"seconds": _seconds(load, checkpoint)} for side, load in sides.items()})
        on_round()
    return [{"name": checkpoint.name.split("-")[1], "rounds": measured}]


def _load_engine(checkpoint: Path) -> object:
    return build(EngineConfig(checkpoint=os.fspath(checkpoint.resolve()), dtype=EXACT_DTYPE))


def _load_pretrained(checkpoint: Path) -> object:
    model: Any = Florence2ForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
    return place(model.eval(), EXACT_DTYPE), Florence2Processor.from_pretrained(checkpoint)


def _seconds(load: Callable[[Path], object], checkpoint: Path) -> float:
    begin = clock()
    loaded = load(checkpoint)
    seconds = clock() - begin
    del loaded  # not part of loading
    return seconds
