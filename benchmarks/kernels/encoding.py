"""Encoding an image and encoding prompts, beside transformers' own forward pass, at base size with random weights.

`python -m benchmarks.kernels.encoding` runs both in one process, in alternation, and fails if the outputs differ.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from florence2_server.engine.model.graphs import CudaRecorder
from florence2_server.engine.model.text_encoder import TextEncoder
from florence2_server.engine.model.vision import VisionTower, vision_graphs
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import Florence2Config, Florence2ForConditionalGeneration

from benchmarks.harness.arguments import add_configs_argument
from benchmarks.harness.device import EXACT_DTYPE, clock, device, place
from benchmarks.harness.spread import Spread, ratios

TOLERANCE = 1e-4
REPETITIONS = 9
_IMAGE_SIDE = 768
_IMAGE_TOKENS = 577
_PROMPT_TOKENS = {"text encoder, 1 prompt": [10], "text encoder, 4 prompts": [8, 16, 24, 33]}
_SIDES = ("ours", "transformers")


class DifferentOutputsError(Exception):
    """Our outputs differ from those of transformers."""


@dataclass(frozen=True)
class Comparison:
    """Two functions that must return the same tensor."""

    name: str
    ours: Callable[[], Tensor]
    transformers: Callable[[], Tensor]

    def difference(self) -> float:
        """The largest absolute difference between the outputs.

        Raises:
            DifferentOutputsError: it is more than `TOLERANCE`.
        """
        difference = (self.ours() - self.transformers()).abs().max().item()
        if not difference <= TOLERANCE:
            raise DifferentOutputsError(
                f"{self.name}: outputs differ by {difference:.3g}, expected at most {TOLERANCE:g}"
            )
        return difference

    def round(self) -> dict[str, dict[str, float]]:
        """Time each side once, in seconds."""
        return {side: {"seconds": _seconds(getattr(self, side))} for side in _SIDES}


def measure(model: Any, repetitions: int = REPETITIONS, image_side: int = _IMAGE_SIDE) -> dict[str, Any]:
    """Compare image and text encoding of a model.

    Args:
        model: `Florence2ForConditionalGeneration`, in evaluation mode.
        repetitions: rounds, each with one run per side.
        image_side: in pixels.

    Returns:
        `loads`, as in the other workloads: a name, and the seconds of each round and side; in addition the largest
        difference between the outputs.

    Raises:
        DifferentOutputsError: the outputs are not equal to 1e-4.
    """
    loads = []
    with torch.inference_mode():
        for comparison in (_image(model, image_side), *(_text(model, name) for name in _PROMPT_TOKENS)):
            difference = comparison.difference()  # and the warm-up
            rounds = [comparison.round() for _ in range(repetitions)]
            loads.append({"name": comparison.name, "difference": difference, "rounds": rounds})
    return {"loads": loads}


def base_size_model(configs: Path) -> Any:
    """A model with random weights and the dimensions in the folder's config.json."""
    torch.manual_seed(0)
    return place(Florence2ForConditionalGeneration(Florence2Config.from_pretrained(configs)).eval(), EXACT_DTYPE)


def _image(model: Any, side: int) -> Comparison:
    pixels = torch.randn(1, 3, side, side).to(device())
    tower: Callable[[Tensor], Tensor] = VisionTower(model)
    if device().type == "cuda":
        tower = vision_graphs(tower, CudaRecorder(device()))
    return Comparison("image", lambda: tower(pixels), lambda: model.get_image_features(pixels).pooler_output)


def _text(model: Any, name: str) -> Comparison:
    lengths = [_IMAGE_TOKENS + tokens for tokens in _PROMPT_TOKENS[name]]
    valid = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).to(device())
    embeddings = torch.randn(*valid.shape, model.config.text_config.d_model).to(device())
    ours, theirs = TextEncoder(model), model.model.language_model.encoder
    mask = valid.long()
    return Comparison(
        name,
        lambda: ours(embeddings, lengths)[valid],
        lambda: theirs(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state[valid],
    )


def _seconds(encode: Callable[[], Tensor]) -> float:
    begin = clock()
    encode()
    return clock() - begin


def print_table(console: Console, result: Mapping[str, Any]) -> None:
    """Print both sides' seconds and their ratio: median, minimum to maximum over the rounds."""
    table = Table(title="encoding, seconds: median (minimum to maximum)", title_justify="left")
    table.add_column("load")
    for heading in (*_SIDES, "ratio", "difference"):
        table.add_column(heading, justify="right")
    for load in result["loads"]:
        ours, theirs = ([figures[side]["seconds"] for figures in load["rounds"]] for side in _SIDES)
        spreads = (Spread.of(ours), Spread.of(theirs), ratios(ours, theirs))
        table.add_row(load["name"], *(_cell(spread) for spread in spreads), f"{load['difference']:.1e}")
    console.print(table)


def _cell(spread: Spread) -> str:
    return f"{spread.median:.3f} [dim]({spread.least:.3f} to {spread.greatest:.3f})[/dim]"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kernels.encoding", description="Our encoders beside those of transformers."
    )
    parser.add_argument("--repetitions", type=int, default=REPETITIONS, help=f"default {REPETITIONS}")
    parser.add_argument("--threads", type=int, help="of PyTorch; default: PyTorch's choice")
    parser.add_argument("--json", type=Path, help="also write every round's figures to this file")
    add_configs_argument(parser)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if not (arguments.configs / "config.json").is_file():
        sys.exit(f"benchmark: {arguments.configs} has no config.json")
    console = Console()
    try:
        result = measure(base_size_model(arguments.configs), arguments.repetitions)
    except DifferentOutputsError as error:
        sys.exit(f"benchmark: {error}")
    print_table(console, result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
        console.print(f"wrote {arguments.json}", highlight=False)


if __name__ == "__main__":
    main()
