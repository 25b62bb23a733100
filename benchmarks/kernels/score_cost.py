"""What the masses of tokens cost: decode steps with them, beside decode steps without.

`python -m benchmarks.kernels.score_cost` measures a model of base size with random weights, and the demo checkpoint.
Both sides alternate in one process. A step is the decoder's, and the search for its candidates; every chosen token
counts as a location, for which a mass takes longest. Without masses, the probabilities are in their place.

On a GPU, the search is queued while the decoder runs: the ratio of steps counts. If steps vary by more than the masses
cost, compare the share: the difference between the searches for candidates alone, as a part of a step.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import torch
from florence2_server.config import EngineConfig
from florence2_server.engine.candidates import CandidateFinder
from florence2_server.engine.checkpoint.loading import load
from florence2_server.engine.generation import Generation
from florence2_server.engine.masses import LOCATIONS, LocationTokens
from florence2_server.engine.model.normalization import Normalization
from florence2_server.engine.model.runner import Runner
from florence2_server.engine.rules import CheckpointRules
from florence2_server.engine.search_options import EarlyStopping, SearchOptions
from florence2_server.engine.searches import start_search
from florence2_server.repository import DEMO_CHECKPOINT
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.harness import machine
from benchmarks.harness.arguments import add_configs_argument, add_output_argument
from benchmarks.harness.device import clock, device
from benchmarks.harness.spread import Spread, ratios
from benchmarks.kernels.encoding import base_size_model

ROUNDS = 9
STEPS = 30  # of each side in a round, of which the median counts
BOUND = 1.02  # on the ratio of steps with masses to steps without
_SIDES: Final = ("ours", "base")
_SLOTS, _ROWS, _POSITIONS, _POSITION, _TOKEN = 16, 16, 640, 30, 100
_PROMPT = [0, 100, 200, 2]


class Load(NamedTuple):
    """A decode batch."""

    name: str
    generations: int
    beams: int


LOADS = (Load("1 row", 1, 1), Load("16 rows", 16, 1), Load("4 generations, 3 beams", 4, 3))


class Measured(NamedTuple):
    """A model that is measured.

    Attributes:
        name: what the tables call it.
        model: `Florence2ForConditionalGeneration`, in evaluation mode.
        image_tokens: of an image.
    """

    name: str
    model: Any
    image_tokens: int


def measure(measured: Measured, rounds: int, steps: int = STEPS) -> list[dict[str, Any]]:
    """Measure all loads with a model.

    Args:
        measured: the model.
        rounds: number of measurements.
        steps: of each side in a round, of which the median counts.

    Returns:
        for each load, its name and the seconds of each round with masses (`ours`) and without (`base`): of a decode
        step (`seconds`), and of the search for candidates alone (`find_seconds`).
    """
    identity = Normalization(1 / 255, (0.0,) * 3, (1.0,) * 3)
    runner = Runner(measured.model, identity, slots=_SLOTS, rows=_ROWS, positions=_positions(measured))
    width = measured.model.get_input_embeddings().weight.shape[1]
    embedding = torch.randn(measured.image_tokens, width, device=device())
    for slot in range(_SLOTS):
        runner.prefill(slot, [embedding], [_PROMPT], None)
    return [
        {"name": f"{measured.name}, {each.name}", "rounds": _Batch(runner, each).rounds(rounds, steps)}
        for each in LOADS
    ]


def _positions(measured: Measured) -> int:
    return min(_POSITIONS, int(measured.model.config.text_config.max_position_embeddings))


class _Batch:
    """The decode batch of one load."""

    def __init__(self, runner: Runner, load_: Load) -> None:
        self._runner = runner
        self._generations = [_generation(number * load_.beams, load_.beams) for number in range(load_.generations)]
        self._rows_of_slots = [generation.rows for generation in self._generations]
        self._rows = sum(len(rows) for rows in self._rows_of_slots)
        base = CandidateFinder(0, 2)
        logits = self._logits()
        chosen = int(base.find(logits, self._generations)[0].token_ids[0, 0])
        first = min(max(0, chosen - LOCATIONS // 2), logits.shape[1] - LOCATIONS)
        self._finders = {"ours": CandidateFinder(0, 2, LocationTokens(first)), "base": base}

    def rounds(self, rounds: int, steps: int) -> list[dict[str, dict[str, float]]]:
        self._round(2)  # warm up
        return [self._round(steps) for _ in range(rounds)]

    def _round(self, steps: int) -> dict[str, dict[str, float]]:
        whole = _alternate({side: partial(self._step, side) for side in _SIDES}, steps)
        logits = self._logits()  # no rule changes them
        found = _alternate({side: partial(self._find, side, logits) for side in _SIDES}, steps)
        return {side: {"seconds": whole[side], "find_seconds": found[side]} for side in _SIDES}

    def _step(self, side: str) -> None:
        self._find(side, self._logits())

    def _find(self, side: str, logits: Tensor) -> None:
        self._finders[side].find(logits, self._generations)

    def _logits(self) -> Tensor:
        return self._runner.decode_step([_TOKEN] * self._rows, [_POSITION] * self._rows, self._rows_of_slots, None)


def _generation(first_row: int, beams: int) -> Generation:
    options = SearchOptions(
        max_new_tokens=100,
        min_new_tokens=0,
        num_beams=beams,
        length_penalty=1.0,
        early_stopping=EarlyStopping.HEURISTIC,
        no_repeat_ngram_size=0,
        repetition_penalty=1.0,
        suppress_bos=False,
        rules=CheckpointRules(),
        bos_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_bos_token_id=None,
        forced_eos_token_id=None,
    )
    rows = list(range(first_row, first_row + beams))
    image: Any = None  # it is encoded already
    return Generation(image=image, prompt_ids=_PROMPT, search=start_search(options, _PROMPT), rows=rows)


def _alternate(functions: Mapping[str, Callable[[], None]], repetitions: int) -> dict[str, float]:
    """The median seconds of functions that run in turn, each as often first as last."""
    taken: dict[str, list[float]] = {name: [] for name in functions}
    order = list(functions)
    for _ in range(repetitions):
        for name in order:
            begin = clock()
            functions[name]()
            taken[name].append(clock() - begin)
        order.reverse()
    return {name: median(seconds) for name, seconds in taken.items()}


def shares(rounds: Sequence[Mapping[str, Mapping[str, float]]]) -> Spread:
    """The difference between the searches with masses and without, as a part of a step without, over the rounds."""
    return Spread.of(
        [(each["ours"]["find_seconds"] - each["base"]["find_seconds"]) / each["base"]["seconds"] for each in rounds]
    )


def print_table(console: Console, loads: Sequence[Mapping[str, Any]]) -> None:
    """Print both sides' milliseconds, their ratio and the share: median, minimum to maximum over the rounds."""
    table = Table(title="masses, ms: median (minimum to maximum)", title_justify="left")
    table.add_column("load")
    for heading in ("step with", "step without", "ratio", "search with", "search without", "share", "target"):
        table.add_column(heading, justify="right")
    for each in loads:
        cells = []
        for field, decimals in (("seconds", 2), ("find_seconds", 3)):
            ours, base = ([1000 * figures[side][field] for figures in each["rounds"]] for side in _SIDES)
            cells += [_cell(Spread.of(ours), decimals), _cell(Spread.of(base), decimals)]
            if field == "seconds":
                ratio = ratios(ours, base)
                cells.append(_cell(ratio, 3))
        share = shares(each["rounds"])
        verdict = "met" if ratio.median <= BOUND else "missed"
        table.add_row(each["name"], *cells, _cell(share, 4), f"ratio at most {BOUND:g}: {verdict}")
    console.print(table)


def _cell(spread: Spread, decimals: int) -> str:
    middle, least, greatest = (f"{value:,.{decimals}f}" for value in (spread.median, spread.least, spread.greatest))
    return f"{middle} [dim]({least} to {greatest})[/dim]"


def _demo() -> Measured:
    checkpoint = load(EngineConfig(checkpoint=str(DEMO_CHECKPOINT), device=device().type))
    return Measured("demo", checkpoint.model, checkpoint.image_tokens)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kernels.score_cost", description="Decode steps with masses beside those without."
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default {ROUNDS}")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of each side in a round; default {STEPS}")
    add_output_argument(parser)
    add_configs_argument(parser)
    arguments = parser.parse_args()
    if not (arguments.configs / "config.json").is_file():
        sys.exit(f"benchmark: {arguments.configs} has no config.json")
    console = Console()
    loads = measure(_demo(), arguments.rounds, arguments.steps)
    base = Measured("base size", base_size_model(arguments.configs), 577)
    loads += measure(base, arguments.rounds, arguments.steps)
    print_table(console, loads)
    file: Path = arguments.output / "score-cost.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"machine": machine.describe(), "loads": loads}, indent=1) + "\n")
    console.print(f"wrote {file}", highlight=False)


if __name__ == "__main__":
    main()
