"""Compares two commits of this server: the `mixed` workload at 16 callers, in alternation.

    python -m benchmarks.comparison.commits \
        --before CHECKOUT --before-command ".venv/bin/python model_repository/serve.py" \
        --after CHECKOUT --after-command ".venv/bin/python -m florence2_server"

Each server is started from its own checkout by its own command, whose Python environment has that checkout's packages.
Requests, expected answers and load come from this checkout, for both. Both servers stay up; one is under load while the
other is idle, and each round swaps their order.
"""

import argparse
import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tritonclient.grpc
from florence2_server.tritonserver import STOP_SECONDS, Ports, StartError
from rich.console import Console
from rich.table import Table
from tritonclient.utils import InferenceServerException

from benchmarks.comparison.measured_server import MeasuredServer
from benchmarks.comparison.workloads import ClosedLoad
from benchmarks.harness import machine
from benchmarks.harness.arguments import add_arguments
from benchmarks.harness.callers import OurCaller
from benchmarks.harness.checkpoints import ConfigsMissingError, make_checkpoint
from benchmarks.harness.device import EXACT_DTYPE
from benchmarks.harness.progress import RunProgress
from benchmarks.harness.reference import Pool, UndecidedError, make_pool
from benchmarks.harness.requests import mixed_groups
from benchmarks.harness.spread import Spread, ratios

TARGET = 0.95
SIDES = ("before", "after")
# Both sides have the same run-out, so that answers per second over the whole run can be compared as well.
FIGURES = {"throughput": "answers/s", "whole_throughput": "answers/s with run-out"}
_READY_SECONDS = 300.0
_READY_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Commit:
    """A server to measure.

    Attributes:
        name: `before` or `after`.
        checkout: the command's working directory.
        command: starts the server, and takes `--http-port`, `--grpc-port` and `--metrics-port`.
    """

    name: str
    checkout: Path
    command: tuple[str, ...]

    @classmethod
    def of_arguments(cls, arguments: argparse.Namespace, name: str) -> "Commit":
        """The commit that the arguments of `add_commit_arguments` describe."""
        checkout, command = getattr(arguments, name), getattr(arguments, f"{name}_command")
        return cls(name, checkout.resolve(), tuple(shlex.split(command)))


def add_commit_arguments(parser: argparse.ArgumentParser, name: str, *, required: bool) -> None:
    """Add the checkout of a commit and the command that starts its server."""
    parser.add_argument(f"--{name}", type=Path, required=required, help="checkout; the command's working directory")
    parser.add_argument(f"--{name}-command", required=required, help="starts its server, interpreter included")


@contextmanager
def started(commit: Commit, checkpoint: Path, logs: Path) -> Iterator[tuple[str, int]]:
    """Start a commit's server, wait until it is ready, and stop it on exit.

    Returns:
        Its `host:port` of gRPC, and its process id.

    Raises:
        StartError: the process has ended, or is not ready in time.
    """
    ports = Ports.free()
    flags = [f"--http-port={ports.http}", f"--grpc-port={ports.grpc}", f"--metrics-port={ports.metrics}"]
    environment = {
        **os.environ,
        # As variables, which commits that do not know them ignore.
        "FLORENCE2_HEALTH_PORT": str(ports.health),
        "FLORENCE2_GRPC_HEALTH_PORT": str(ports.grpc_health),
        "FLORENCE2_CHECKPOINT": os.fspath(checkpoint.resolve()),
        "FLORENCE2_DTYPE": EXACT_DTYPE,
    }
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / f"{commit.name}.log").open("wb") as log:
        process = subprocess.Popen(
            [*commit.command, *flags], cwd=commit.checkout, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            url = f"127.0.0.1:{ports.grpc}"
            _wait_until_ready(commit.name, process, url)
            yield url, process.pid
        finally:
            _stop(process)


def _wait_until_ready(name: str, process: "subprocess.Popen[bytes]", url: str) -> None:
    client: Any = tritonclient.grpc.InferenceServerClient(url)
    deadline = time.monotonic() + _READY_SECONDS
    with contextlib.closing(client):
        while not _is_ready(client):
            if process.poll() is not None:
                raise StartError(f"{name}: the server ended with exit status {process.returncode}; see its log")
            if time.monotonic() > deadline:
                raise StartError(f"{name}: the server is not ready after {_READY_SECONDS:.0f} s; see its log")
            time.sleep(_READY_POLL_SECONDS)


def _is_ready(client: Any) -> bool:
    try:
        return bool(client.is_server_ready())
    except InferenceServerException:  # nothing listens yet
        return False


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(2 * STOP_SECONDS)  # the command itself gives tritonserver half of that
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def compare(
    servers: Mapping[str, MeasuredServer], load: ClosedLoad, rounds: int, progress: RunProgress
) -> list[dict[str, dict[str, Any]]]:
    """Measure both servers in alternation.

    Returns:
        For each round and side the fields of a measurement.
    """
    measured = []
    for number in range(rounds):
        order = SIDES if number % 2 == 0 else tuple(reversed(SIDES))
        figures = {
            name: servers[name].measure(load, 0.0, f"round {number + 1}, {name}", progress).to_json() for name in order
        }
        measured.append({name: figures[name] for name in SIDES})
    return measured


def throughput_ratios(rounds: Sequence[Mapping[str, Mapping[str, Any]]], figure: str) -> Spread:
    """The spread of after / before per round."""
    return ratios(*([each[name][figure] for each in rounds] for name in reversed(SIDES)))


def print_rounds(console: Console, rounds: Sequence[Mapping[str, Mapping[str, Any]]]) -> None:
    """Print each round's figures and ratios, and the verdict on their medians."""
    table = Table("figure", "round", *SIDES, "ratio", title="mixed: after / before", title_justify="left")
    for figure, heading in FIGURES.items():
        for number, each in enumerate(rounds, start=1):
            before, after = (each[name][figure] for name in SIDES)
            table.add_row(heading, str(number), f"{before:.3f}", f"{after:.3f}", f"{after / before:.3f}")
        table.add_section()
    console.print(table)
    for figure, heading in FIGURES.items():
        spread = throughput_ratios(rounds, figure)
        console.print(
            f"{heading}: median ratio {spread.median:.3f} ({spread.least:.3f} to {spread.greatest:.3f}), target at "
            f"least {TARGET}: {'met' if spread.median >= TARGET else 'missed'}",
            highlight=False,
        )


def main() -> None:
    """The command line."""
    arguments = _arguments()
    console, load = Console(), ClosedLoad(arguments.callers, arguments.requests)
    commits = [Commit.of_arguments(arguments, name) for name in SIDES]
    try:
        rounds, wrong = _measure(commits, load, arguments, console)
    except (ConfigsMissingError, UndecidedError, StartError) as error:
        sys.exit(f"benchmark: {error}")
    file = arguments.output / "commits.json"
    described = {commit.name: machine.commit(commit.checkout) for commit in commits}
    report = {"machine": machine.describe(), "commits": described, "load": asdict(load), "rounds": rounds}
    file.write_text(json.dumps(report, indent=1) + "\n")
    print_rounds(console, rounds)
    console.print(f"wrote {file}", highlight=False)
    if wrong:
        sys.exit(f"benchmark: {wrong} answers differ from those that generate() gives alone")


def _measure(
    commits: Sequence[Commit], load: ClosedLoad, arguments: argparse.Namespace, console: Console
) -> tuple[list[dict[str, dict[str, Any]]], int]:
    """The rounds, and the number of responses that differ from the expected answers."""
    cache = arguments.output / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    checkpoint = make_checkpoint("mixed", arguments.configs, cache)
    groups = mixed_groups(load.requests, arguments.seed)
    with RunProgress(console, len(SIDES) * arguments.rounds) as progress, ExitStack() as stack:
        with progress.preparation("expected answers", len(groups)) as set_done:
            pool = make_pool(groups, 1, checkpoint, cache, set_done)
        servers = {}
        for commit in commits:
            progress.say(f"starting {commit.name}")
            servers[commit.name] = _server(commit, checkpoint, arguments, pool, stack)
        rounds = compare(servers, load, arguments.rounds, progress)
    return rounds, sum(len(server.mismatches) for server in servers.values())


def _server(
    commit: Commit, checkpoint: Path, arguments: argparse.Namespace, pool: Pool, stack: ExitStack
) -> MeasuredServer:
    url, process_id = stack.enter_context(started(commit, checkpoint, arguments.output / "logs"))
    caller = OurCaller(url)
    stack.callback(caller.close)
    return MeasuredServer(caller, process_id, pool, num_beams=1, seed=arguments.seed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.comparison.commits",
        description="Two commits of this server in alternation: mixed at 16 callers.",
    )
    for name in SIDES:
        add_commit_arguments(parser, name, required=True)
    parser.add_argument("--rounds", type=int, default=5, help="default %(default)s")
    parser.add_argument("--callers", type=int, default=16, help="default %(default)s")
    parser.add_argument("--requests", type=int, default=48, help="of each measurement; default %(default)s")
    add_arguments(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
