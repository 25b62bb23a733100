"""What adapters cost: decode steps, prefills and new images of requests with adapters, beside those without.

`python -m benchmarks.kernels.adapters` measures a model of base size with random weights, and adapters of rank 8 with
the targets of Hugging Face's Florence-2 notebook: query, key, value and fc2 of the text model, fc2 of the vision tower,
and the output layer. Both sides alternate in one process. It also counts the memory that an adapter takes.
"""

import argparse
import gc
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from florence2_server.engine.model.adapter_index import BASE
from florence2_server.engine.model.adapter_tensors import AdapterTensors, Factors
from florence2_server.engine.model.normalization import Normalization
from florence2_server.engine.model.runner import Runner
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.harness import machine
from benchmarks.harness.arguments import add_configs_argument, add_output_argument
from benchmarks.harness.device import clock, device
from benchmarks.harness.spread import Spread, ratios
from benchmarks.kernels.encoding import base_size_model

ROUNDS = 9
BOUND = 1.4  # on the ratio of the time with adapters to the time without
DECODE_STEP, PREFILL = "decode step, 16 adapters", "prefill of 4, 4 adapters"
LOADS = (DECODE_STEP, "decode step, one of 16 rows", "decode step, one adapter", PREFILL, "4 new images, 4 adapters")
BOUNDED = (DECODE_STEP, PREFILL)
TOLERANCE = 1e-4
_TARGETS = ("q_proj", "k_proj", "v_proj", "fc2", "lm_head")
_RANK = 8
_ROWS, _PREFILLED = 16, 4
_STEPS = 7  # of each kind in a round
_POSITIONS = 1024
_PROMPT = [0, *[5] * 8, 2]
_TOKEN, _POSITION = 100, 30  # that the decode steps feed: in the middle of a completion
_IMAGE_SIDE, _IMAGE_TOKENS = 768, 577
_FACTOR_SIZE = 0.05  # standard deviation


class HarmedError(Exception):
    """The logits of a row without an adapter depend on the adapters of others, or an adapter changes nothing."""


@dataclass(frozen=True)
class Sizes:
    """The inputs that determine what is measured.

    Attributes:
        image_side: of new images, in pixels.
        image_tokens: of cached embeddings.
        steps: decode steps of each kind in a round, of which the median counts.
    """

    image_side: int = _IMAGE_SIDE
    image_tokens: int = _IMAGE_TOKENS
    steps: int = _STEPS


def measure(model: Any, rounds: int, sizes: Sizes | None = None) -> dict[str, Any]:
    """Measure a model with 16 adapters.

    Args:
        model: `Florence2ForConditionalGeneration`, in evaluation mode.
        rounds: number of measurements of each.
        sizes: of the inputs; by default those of Florence-2.

    Returns:
        `loads`, as in the other workloads: a name, and the seconds of each round with adapters (`ours`) and without
        (`base`); `adapter_bytes`, the memory that an adapter takes, and `tensor_bytes`, the size of its tensors.

    Raises:
        HarmedError: the logits of a row without an adapter differ by more than `TOLERANCE` from those in a batch
            without any adapter.
    """
    measured = _Measured(model, sizes or Sizes())
    measured.check()
    found = [measured.round() for _ in range(rounds)]
    return {
        "loads": [{"name": name, "rounds": [each[name] for each in found]} for name in LOADS],
        "adapter_bytes": measured.adapter_bytes,
        "tensor_bytes": measured.tensor_bytes,
    }


class _Measured:
    """A runner with 16 adapters and 16 generations."""

    def __init__(self, model: Any, sizes: Sizes) -> None:
        self._sizes = sizes
        layers = _targeted(model)
        vocabulary, width = model.get_input_embeddings().weight.shape
        identity = Normalization(1 / 255, (0.0,) * 3, (1.0,) * 3)
        self._runner = Runner(model, identity, slots=_ROWS, rows=_ROWS, positions=_POSITIONS)
        before = _living_bytes()
        for index in range(_ROWS):
            tensors = _random_adapter(layers, vocabulary)
            self.tensor_bytes = tensors.size_in_bytes
            self._runner.load_adapter(index, tensors)
        del tensors
        self.adapter_bytes = (_living_bytes() - before) / _ROWS
        self._embeddings = [torch.randn(sizes.image_tokens, width, device=device()) for _ in range(_PREFILLED)]
        side = sizes.image_side
        self._images = torch.randint(0, 256, (_PREFILLED, 3, side, side), dtype=torch.uint8)
        for first in range(0, _ROWS, _PREFILLED):
            self._prefill(first, None)

    def check(self) -> None:
        """Compare batches with one adapted row with a batch without adapters; also the warm-up of decode steps.

        Raises:
            HarmedError: an adapter changes the logits of other rows, or not those of its own.
        """
        expected = self._step(None).clone()
        change = (self._step([0, *[BASE] * (_ROWS - 1)]) - expected).abs().amax(dim=1)
        if not (change[0] > TOLERANCE and change[1:].max() <= TOLERANCE):
            raise HarmedError(f"got changes of the rows' logits by {change.tolist()}, expected those of the first only")

    def round(self) -> dict[str, dict[str, dict[str, float]]]:
        """The seconds of each load with adapters and without."""
        every, four = list(range(_ROWS)), list(range(_PREFILLED))
        alternatives = (None, every, [0, *[BASE] * (_ROWS - 1)], [0] * _ROWS)
        taken = [[self._step_seconds(each) for each in alternatives] for _ in range(self._sizes.steps)]
        base, *adapted = (median(each) for each in zip(*taken, strict=True))
        base_prefill, prefill = (_seconds(partial(self._prefill, 0, each)) for each in (None, four))
        base_images, images = (_seconds(partial(self._new_images, each)) for each in (None, four))
        pairs = [*((each, base) for each in adapted), (prefill, base_prefill), (images, base_images)]
        return {
            name: {"ours": {"seconds": ours}, "base": {"seconds": other}}
            for name, (ours, other) in zip(LOADS, pairs, strict=True)
        }

    def _step(self, adapters: list[int] | None) -> Tensor:
        rows = [[row] for row in range(_ROWS)]
        return self._runner.decode_step([_TOKEN] * _ROWS, [_POSITION] * _ROWS, rows, adapters)

    def _step_seconds(self, adapters: list[int] | None) -> float:
        """The second of two steps: most steps follow one of the same generations."""
        self._step(adapters)
        return _seconds(partial(self._step, adapters))

    def _prefill(self, first_slot: int, adapters: Sequence[int] | None) -> None:
        self._runner.prefill(first_slot, self._embeddings, [_PROMPT] * _PREFILLED, adapters)

    def _new_images(self, adapters: Sequence[int] | None) -> None:
        """Encode an image of each request, one by one as the engine does on a CPU, and prefill."""
        owners = adapters or [BASE] * _PREFILLED
        embeddings = [
            self._runner.encode_images([image], adapter)[0] for image, adapter in zip(self._images, owners, strict=True)
        ]
        self._runner.prefill(0, embeddings, [_PROMPT] * _PREFILLED, adapters)


def _targeted(model: Any) -> dict[str, tuple[int, int]]:
    """The outputs and inputs of each layer that the adapters target."""
    return {
        name: (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.rpartition(".")[2] in _TARGETS
    }


def _random_adapter(layers: Mapping[str, tuple[int, int]], vocabulary: int) -> AdapterTensors:
    factors = {
        name: Factors(
            down=torch.randn(_RANK, inputs, device=device()) * _FACTOR_SIZE,
            up=torch.randn(outputs, _RANK, device=device()) * _FACTOR_SIZE,
        )
        for name, (outputs, inputs) in layers.items()
    }
    return AdapterTensors(factors, vocabulary=vocabulary)


def _living_bytes() -> int:
    """The memory of all tensors that Python refers to."""
    gc.collect()
    tensors = [each for each in gc.get_objects() if issubclass(type(each), Tensor)]
    storages = [each.untyped_storage() for each in tensors if each.layout is torch.strided and not each.is_meta]
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())


def _seconds(function: Callable[[], Any]) -> float:
    begin = clock()
    function()
    return clock() - begin


def print_table(console: Console, result: Mapping[str, Any]) -> None:
    """Print both sides' milliseconds and their ratio: median, minimum to maximum over the rounds."""
    table = Table(title="adapters, ms: median (minimum to maximum)", title_justify="left")
    table.add_column("load")
    for heading in ("with adapters", "without", "ratio", "target"):
        table.add_column(heading, justify="right")
    for load in result["loads"]:
        ours, base = ([1000 * each[side]["seconds"] for each in load["rounds"]] for side in ("ours", "base"))
        ratio = ratios(ours, base)
        verdict = "met" if ratio.median <= BOUND else "missed"
        target = f"at most {BOUND:g}: {verdict}" if load["name"] in BOUNDED else ""
        cells = [_cell(Spread.of(ours), 1), _cell(Spread.of(base), 1), _cell(ratio, 2)]
        table.add_row(load["name"], *cells, target)
    console.print(table)
    console.print(
        f"an adapter takes {result['adapter_bytes']:,.0f} bytes; its tensors have {result['tensor_bytes']:,}",
        highlight=False,
    )


def _cell(spread: Spread, decimals: int) -> str:
    middle, least, greatest = (f"{value:,.{decimals}f}" for value in (spread.median, spread.least, spread.greatest))
    return f"{middle} [dim]({least} to {greatest})[/dim]"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kernels.adapters", description="Batches with adapters beside batches without."
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default {ROUNDS}")
    add_output_argument(parser)
    add_configs_argument(parser)
    arguments = parser.parse_args()
    if not (arguments.configs / "config.json").is_file():
        sys.exit(f"benchmark: {arguments.configs} has no config.json")
    console = Console()
    try:
        result = measure(base_size_model(arguments.configs), arguments.rounds)
    except HarmedError as error:
        sys.exit(f"benchmark: {error}")
    print_table(console, result)
    file: Path = arguments.output / "adapters.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"machine": machine.describe(), **result}, indent=1) + "\n")
    console.print(f"wrote {file}", highlight=False)


if __name__ == "__main__":
    main()
