"""What every command of the benchmarks takes."""

import argparse
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Seed, and the folders for what is read and written."""
    parser.add_argument("--seed", type=int, default=1, help="default %(default)s")
    parser.add_argument("--output", type=Path, default=_ROOT / "build" / "benchmarks", help="default build/benchmarks")
    parser.add_argument(
        "--configs",
        type=Path,
        default=_ROOT.parent / "shared" / "florence2-base",
        help="folder with Florence-2-base's tokenizer, processor and configs; default ../shared/florence2-base",
    )
