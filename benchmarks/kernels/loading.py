"""From a checkpoint's folder to an engine that can answer, beside what `from_pretrained` takes for model and processor.

In one process, so that importing torch and transformers counts for neither, and from a warm page cache.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from florence2_engine.__main__ import build
from florence2_engine.config import EngineConfig
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from benchmarks.device import EXACT_DTYPE, clock, place


def run(checkpoint: Path, rounds: int, on_round: Callable[[], None]) -> list[dict[str, Any]]:
    """Load both ways in alternation.

    Args:
        checkpoint: a folder.
        rounds: how often.
        on_round: called after each.

    Returns:
        One load; per round and side the seconds.
    """
    sides = {"ours": _load_engine, "from_pretrained": _load_pretrained}
    _load_pretrained(checkpoint)  # the files are in the page cache from here on
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
    del loaded  # freeing it is no part of loading
    return seconds
