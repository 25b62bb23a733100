"""A hundred requests at once beside the same hundred from sixteen callers: `python -m benchmarks.comparison.burst`.

A server whose queue does not wait needs the same time for both. The server is ours, with the demo checkpoint and its
default settings. With `--before`, another commit's server gets the requests of the sixteen callers in alternation.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from florence2.client import Client
from florence2_server.tritonserver import StartError, TritonServer
from rich.console import Console

from benchmarks.comparison.commits import Commit, add_commit_arguments, started
from benchmarks.harness.arguments import add_output_argument
from benchmarks.harness.spread import Spread, ratios

REQUESTS = 100
CALLERS = 16
TARGET = 1.15
TARGET_TO_BEFORE = 1.05
_ROOT = Path(__file__).resolve().parents[2]
_IMAGE = _ROOT / "examples" / "scene.png"
_DEMO_CHECKPOINT = _ROOT / "model_repository" / "florence2" / "demo_checkpoint"
_READY_SECONDS = 180.0
_AT_ONCE, _SPREAD_OUT, _BEFORE = f"{REQUESTS} at once", f"{CALLERS} callers", f"before, {CALLERS} callers"


def main() -> None:
    """Measure in alternation; print each round, and the ratios."""
    arguments = _arguments()
    console, logs = Console(), arguments.output / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as stack:
            clients = {"ours": _our_client(logs, stack)}
            if arguments.before:
                clients["before"] = _client_before(Commit.of_arguments(arguments, "before"), logs, stack)
            rounds = _rounds(clients, arguments.rounds, console)
    except StartError as error:
        sys.exit(f"benchmark: {error}")
    _print_ratio(console, rounds, _AT_ONCE, _SPREAD_OUT, TARGET)
    if arguments.before:
        _print_ratio(console, rounds, _SPREAD_OUT, _BEFORE, TARGET_TO_BEFORE)


def _our_client(logs: Path, stack: ExitStack) -> Client:
    log = stack.enter_context((logs / "burst.log").open("wb"))
    server = stack.enter_context(TritonServer(log=log))
    server.wait_until_ready(_READY_SECONDS)
    return stack.enter_context(Client(server.grpc_url))


def _client_before(commit: Commit, logs: Path, stack: ExitStack) -> Client:
    url, _ = stack.enter_context(started(commit, _DEMO_CHECKPOINT, logs))
    return stack.enter_context(Client(url))


def _rounds(clients: Mapping[str, Client], count: int, console: Console) -> list[dict[str, float]]:
    """The seconds of each load, by name, for each round; every round reverses the order of the loads."""
    image = _IMAGE.read_bytes()
    loads = [(_AT_ONCE, clients["ours"], REQUESTS), (_SPREAD_OUT, clients["ours"], CALLERS)]
    if "before" in clients:
        loads.append((_BEFORE, clients["before"], CALLERS))
    for _, client, callers in loads:
        _seconds(client, image, callers)  # warms up threads, connections and caches
    rounds = []
    for number in range(count):
        rounds.append({name: _seconds(client, image, callers) for name, client, callers in loads})
        loads.reverse()
        times = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in sorted(rounds[-1].items()))
        console.print(f"round {number + 1}: {times}", highlight=False, soft_wrap=True)
    return rounds


def _seconds(client: Client, image: bytes, callers: int) -> float:
    with ThreadPoolExecutor(callers) as pool:
        begin = time.monotonic()
        for answer in pool.map(lambda _: client.caption(image, max_new_tokens=24), range(REQUESTS)):
            assert answer.text
        return time.monotonic() - begin


def _print_ratio(console: Console, rounds: Sequence[Mapping[str, float]], name: str, other: str, target: float) -> None:
    times = {each: Spread.of([one[each] for one in rounds]) for each in (name, other)}
    ratio = ratios([one[name] for one in rounds], [one[other] for one in rounds])
    medians = " / ".join(f"{each} {spread} s" for each, spread in times.items())
    console.print(f"{medians}: {ratio.verdict(target)}", highlight=False, soft_wrap=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.comparison.burst",
        description="A hundred requests at once beside the same hundred from sixteen callers.",
    )
    add_commit_arguments(parser, "before", required=False)
    parser.add_argument("--rounds", type=int, default=9, help="default %(default)s")
    add_output_argument(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
