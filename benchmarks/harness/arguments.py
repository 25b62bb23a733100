"""Command-line arguments that the benchmarks share."""

import argparse
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the seed and the folders for input and output."""
    parser.add_argument("--seed", type=int, default=1, help="default %(default)s")
    add_output_argument(parser)
    add_configs_argument(parser)


def add_output_argument(parser: argparse.ArgumentParser) -> None:
    """Add the folder for results, logs and caches."""
    parser.add_argument("--output", type=Path, default=_ROOT / "build" / "benchmarks", help="default build/benchmarks")


def add_configs_argument(parser: argparse.ArgumentParser) -> None:
    """Add the folder with the real model's configuration."""
    parser.add_argument(
        "--configs",
        type=Path,
        default=_ROOT.parent / "shared" / "florence2-base",
        help="folder with Florence-2-base's tokenizer, processor and configs; default ../shared/florence2-base",
    )
