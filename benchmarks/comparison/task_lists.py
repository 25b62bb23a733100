"""Eight tasks about one image in one request beside eight requests: `python -m benchmarks.comparison.task_lists`.

Three ways in alternation, each time about a new image: one request with a task list; eight requests at once; and eight
requests, one after another, to a server without the embedding cache. (Requests that are under way at the same time
share the encoding of their image even without the cache.) The answers must not depend on the way.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from florence2.v1 import TaskList, TaskRequest, TaskResponse
from florence2_server.tritonserver import StartError
from rich.console import Console
from rich.table import Table
from transformers.utils import logging

from benchmarks.harness import machine
from benchmarks.harness.arguments import add_arguments
from benchmarks.harness.checkpoints import ConfigsMissingError, make_checkpoint
from benchmarks.harness.device import EXACT_DTYPE
from benchmarks.harness.lengths import ALBUM_TASKS, ANSWER_LENGTHS
from benchmarks.harness.requests import Request, RequestGroup
from benchmarks.harness.servers import OURS, running
from benchmarks.harness.spread import Spread, ratios
from benchmarks.harness.wire import WireCaller

TARGET = 1.05
ONE, AT_ONCE, UNCACHED = "one request", "eight at once", "eight in turn, no cache"
_FIGURES = {"seconds": "time, s", "sent": "bytes sent", "received": "bytes received", "encodings": "encodings"}


class DifferentAnswersError(Exception):
    """The answers to the tasks depend on the way in which they were sent."""


@dataclass(frozen=True)
class Measured:
    """Eight tasks, answered.

    Attributes:
        sent: bytes of the requests' messages.
        received: bytes of the responses' messages.
        encodings: tasks whose image embedding came from no other task.
        texts: of the answers, in the order of the tasks.
    """

    seconds: float
    sent: int
    received: int
    encodings: int
    texts: tuple[str, ...]


def main() -> None:
    """Measure; print the table and the verdict, and write all rounds as JSON."""
    arguments = _arguments()
    console = Console()
    logging.disable_progress_bar()
    try:
        rounds = _measure(arguments, console)
    except (ConfigsMissingError, StartError, DifferentAnswersError) as error:
        sys.exit(f"benchmark: {error}")
    file = arguments.output / "task_lists.json"
    report = {"machine": machine.describe(), "rounds": [{name: asdict(each[name]) for name in each} for each in rounds]}
    file.write_text(json.dumps(report, indent=1) + "\n")
    _print_table(console, rounds)
    console.print(f"{ONE} / {AT_ONCE}: {_ratio(rounds, AT_ONCE).verdict(TARGET)}", highlight=False, soft_wrap=True)
    console.print(f"{ONE} / {UNCACHED}: {_ratio(rounds, UNCACHED)}", highlight=False, soft_wrap=True)
    console.print(f"wrote {file}", highlight=False, soft_wrap=True)


def _measure(arguments: argparse.Namespace, console: Console) -> list[dict[str, Measured]]:
    cache, logs = arguments.output / "cache", arguments.output / "logs"
    cache.mkdir(parents=True, exist_ok=True)
    checkpoint = make_checkpoint("base", arguments.configs, cache)
    with ExitStack() as stack:
        cached = _caller(checkpoint, logs / "task-lists", {}, stack)
        uncached = _caller(checkpoint, logs / "task-lists-no-cache", {"FLORENCE2_EMBEDDING_CACHE_BYTES": "0"}, stack)
        ways: dict[str, Callable[[Sequence[Request]], Measured]] = {
            ONE: lambda requests: in_one_request(cached, requests),
            AT_ONCE: lambda requests: in_a_request_each(cached, requests, at_once=len(requests)),
            UNCACHED: lambda requests: in_a_request_each(uncached, requests, at_once=1),
        }
        requests = _requests(arguments.seed)
        in_a_request_each(cached, _stamped(requests, "warm-up"), at_once=len(requests))
        in_a_request_each(uncached, _stamped(requests[:1], "warm-up"), at_once=1)
        return [_round(ways, requests, number, console) for number in range(arguments.rounds)]


def _caller(checkpoint: Path, logs: Path, environment: Mapping[str, str], stack: ExitStack) -> WireCaller:
    server = stack.enter_context(running(OURS, checkpoint, logs, EXACT_DTYPE, environment=environment))
    caller = WireCaller(server.grpc_url)
    stack.callback(caller.close)
    return caller


def _requests(seed: int) -> list[Request]:
    """A task list's requests, with the shortest answers of their tasks' ranges."""
    lengths = tuple((task, ANSWER_LENGTHS[task].shortest) for task in ALBUM_TASKS)
    return RequestGroup("task-list", seed, lengths).requests(attempt=0)


def _stamped(requests: Sequence[Request], stamp: str) -> list[Request]:
    return [request.stamped(stamp) for request in requests]


def _round(
    ways: Mapping[str, Callable[[Sequence[Request]], Measured]],
    requests: Sequence[Request],
    number: int,
    console: Console,
) -> dict[str, Measured]:
    """Measure each way once. Every other round reverses their order.

    Raises:
        DifferentAnswersError: two ways had different answers.
    """
    measured = {}
    for name in list(ways)[:: -1 if number % 2 else 1]:
        measured[name] = ways[name](_stamped(requests, f"round {number}, {name}"))
        console.print(f"round {number + 1}, {name}: {measured[name].seconds:.2f} s", highlight=False, soft_wrap=True)
    for name in ways:
        if measured[name].texts != measured[ONE].texts:
            raise DifferentAnswersError(f"round {number + 1}: answers of {name} differ from those of {ONE}")
    return {name: measured[name] for name in ways}


def in_one_request(caller: WireCaller, requests: Sequence[Request]) -> Measured:
    """Send all tasks about an image in one request."""
    tasks = TaskRequest(task_list=TaskList(tasks=[_task_request(request) for request in requests]))
    begin = time.perf_counter()
    exchanged = caller.send(requests[0].image, tasks)
    seconds = time.perf_counter() - begin
    return _measured(seconds, exchanged.sent, exchanged.received, [step.response for step in exchanged.response.steps])


def in_a_request_each(caller: WireCaller, requests: Sequence[Request], at_once: int) -> Measured:
    """Send each task in a request of its own, `at_once` at a time."""
    begin = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        exchanged = list(pool.map(lambda request: caller.send(request.image, _task_request(request)), requests))
        seconds = time.perf_counter() - begin
    responses = [each.response for each in exchanged]
    return _measured(seconds, sum(each.sent for each in exchanged), sum(each.received for each in exchanged), responses)


def _task_request(request: Request) -> TaskRequest:
    message = request.to_task_request(num_beams=1)
    message.raw = False
    return message


def _measured(seconds: float, sent: int, received: int, responses: Sequence[TaskResponse]) -> Measured:
    encodings = sum(not response.usage.image_embedding_cached for response in responses)
    return Measured(seconds, sent, received, encodings, tuple(response.text for response in responses))


def _ratio(rounds: Sequence[Mapping[str, Measured]], other: str) -> Spread:
    return ratios([each[ONE].seconds for each in rounds], [each[other].seconds for each in rounds])


def _print_table(console: Console, rounds: Sequence[Mapping[str, Measured]]) -> None:
    table = Table(title=f"eight tasks about an image, {len(rounds)} rounds: median (range)", title_justify="left")
    for heading in ("", *_FIGURES.values()):
        table.add_column(heading, no_wrap=True)
    for name in rounds[0]:
        spreads = [Spread.of([getattr(each[name], figure) for each in rounds]) for figure in _FIGURES]
        cells = [str(spreads[0]), *(f"{spread.median:,.0f}" for spread in spreads[1:])]
        table.add_row(name, *cells)
    console.print(table)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.comparison.task_lists",
        description="Eight tasks about one image in one request beside eight requests.",
    )
    parser.add_argument("--rounds", type=int, default=3, help="default %(default)s")
    add_arguments(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
