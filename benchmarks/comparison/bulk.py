"""A bulk run beside a closed loop of as many callers: `python -m benchmarks.comparison.bulk`.

The same captions of the same images at the same server, in alternation. The loop has the images in memory and drops the
answers; the bulk run lists a folder, reads its files, decodes the answers, keeps its state and writes JSON Lines. The
time of both is from their first image to their last, or to the complete output. Starting Python is part of neither.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from florence2 import AsyncClient
from florence2.bulk import BulkJob, JobSettings
from florence2.options import TaskOptions
from florence2_server.tritonserver import StartError
from rich.console import Console

from benchmarks.harness import machine
from benchmarks.harness.arguments import add_output_argument
from benchmarks.harness.callers import OurCaller
from benchmarks.harness.device import EXACT_DTYPE
from benchmarks.harness.load import closed_loop
from benchmarks.harness.requests import Request, caption_groups
from benchmarks.harness.servers import OURS, SERVED_AT_ONCE, running
from benchmarks.harness.spread import Spread

TARGET = 0.95
_TOKENS = 12


class LostImagesError(Exception):
    """The bulk run has fewer results than images."""


@dataclass(frozen=True)
class Round:
    """Images a second of each side."""

    bulk: float
    loop: float


def main() -> None:
    """Measure; print the rounds and the verdict, and write them as JSON."""
    arguments = _arguments()
    console = Console()
    try:
        rounds = _measure(arguments, console)
    except (StartError, LostImagesError) as error:
        sys.exit(f"benchmark: {error}")
    file = arguments.output / "bulk.json"
    report = {"machine": machine.describe(), "rounds": [asdict(each) for each in rounds]}
    file.write_text(json.dumps(report, indent=1) + "\n")
    bulk, loop = Spread.of([each.bulk for each in rounds]), Spread.of([each.loop for each in rounds])
    ratio = bulk.median / loop.median
    verdict = "met" if ratio >= TARGET else "missed"
    console.print(f"images/s: bulk run {bulk}, closed loop {loop}", highlight=False, soft_wrap=True)
    console.print(f"bulk run / closed loop: {ratio:.3f}, target at least {TARGET:g}: {verdict}", highlight=False)
    console.print(f"wrote {file}", highlight=False, soft_wrap=True)


def _measure(arguments: argparse.Namespace, console: Console) -> list[Round]:
    logs = arguments.output / "logs" / "bulk"
    groups = caption_groups(arguments.images, arguments.seed)
    requests = [replace(group.requests(attempt=0)[0], answer_tokens=_TOKENS) for group in groups]
    rounds = []
    with running(OURS, OURS.model / "demo_checkpoint", logs, EXACT_DTYPE) as server:
        _loop(server.grpc_url, _stamped(requests[:SERVED_AT_ONCE], "warm-up"), arguments.concurrency)
        for number in range(arguments.rounds):
            # New bytes each time, so that no image's embedding is cached. Every other round reverses the order.
            sides = {"bulk": _bulk, "loop": _loop}
            measured = {
                name: sides[name](server.grpc_url, _stamped(requests, f"{number} {name}"), arguments.concurrency)
                for name in list(sides)[:: -1 if number % 2 else 1]
            }
            rounds.append(Round(**measured))
            console.print(f"round {number + 1}: {rounds[-1]}", highlight=False, soft_wrap=True)
    return rounds


def _stamped(requests: Sequence[Request], stamp: str) -> list[Request]:
    return [request.stamped(stamp) for request in requests]


def _loop(url: str, requests: Sequence[Request], concurrency: int) -> float:
    """Images a second of a closed loop."""
    caller = OurCaller(url)
    begin = time.perf_counter()
    closed_loop(caller, requests, concurrency, num_beams=1, on_response=lambda: None)
    seconds = time.perf_counter() - begin
    caller.close()
    return len(requests) / seconds


def _bulk(url: str, requests: Sequence[Request], concurrency: int) -> float:
    """Images a second of a bulk run."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "images"
        folder.mkdir()
        for number, request in enumerate(requests):
            (folder / f"{number:06}.jpg").write_bytes(request.image)
        options = TaskOptions(num_beams=1, min_new_tokens=_TOKENS, max_new_tokens=_TOKENS)
        settings = JobSettings(
            [str(folder)],
            ["caption"],
            str(Path(scratch) / "out.jsonl"),
            options=options,
            concurrency=concurrency,
        )
        begin = time.perf_counter()
        done = asyncio.run(_run(settings, url))
        seconds = time.perf_counter() - begin
    if done != len(requests):
        raise LostImagesError(f"the bulk run has {done} results for {len(requests)} images")
    return len(requests) / seconds


async def _run(settings: JobSettings, url: str) -> int:
    with BulkJob(settings) as job:
        async with AsyncClient(url) as client:
            summary = await job.run(client)
    return summary.images - summary.failed


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.comparison.bulk", description="A bulk run beside a closed loop of as many callers."
    )
    parser.add_argument("--rounds", type=int, default=5, help="default %(default)s")
    parser.add_argument("--images", type=int, default=600, help="in each round; default %(default)s")
    parser.add_argument("--concurrency", type=int, default=SERVED_AT_ONCE, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="default %(default)s")
    add_output_argument(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
