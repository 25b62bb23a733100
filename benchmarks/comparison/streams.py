"""The time to a stream's first event beside that to its last: `python -m benchmarks.comparison.streams`.

A text of 600 tokens, greedy, about an image whose embedding is cached, streamed over gRPC by our client and over HTTP
as server-sent events, in alternation. The server is ours, with Florence-2-base's size and random weights. The pieces of
every stream have to be the text of the unary answer.
"""

import argparse
import base64
import json
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

from florence2 import Client, Finished, TextDelta
from florence2.v1 import StreamEvent, TaskRequest
from florence2_server.repository import REPOSITORY
from florence2_server.tritonserver import StartError
from google.protobuf import json_format
from rich.console import Console
from rich.table import Table
from transformers.utils import logging

from benchmarks.harness import machine
from benchmarks.harness.arguments import add_arguments
from benchmarks.harness.checkpoints import ConfigsMissingError, make_checkpoint
from benchmarks.harness.device import EXACT_DTYPE
from benchmarks.harness.requests import RequestGroup
from benchmarks.harness.servers import OURS, running
from benchmarks.harness.spread import Spread, ratios

TARGET = 0.1
ANSWER_TOKENS = 600
_STREAM_MODEL = REPOSITORY / "florence2_stream"
_DATA = b"data: "  # begins the line of a server-sent event
_TIMEOUT_SECONDS = 300.0
_FIGURES = {"first": "first event, s", "last": "last event, s", "events": "events"}


class DifferentTextError(Exception):
    """The pieces of a stream are not the text of the unary answer."""


@dataclass(frozen=True)
class Watched:
    """A stream, from its request to its end.

    Attributes:
        first: seconds to the first event.
        last: seconds to the last event.
        events: their number.
    """

    first: float
    last: float
    events: int


def main() -> None:
    """Measure; print the table and the verdicts, and write all rounds as JSON."""
    arguments = _arguments()
    console = Console()
    logging.disable_progress_bar()
    try:
        rounds = _measure(arguments, console)
    except (ConfigsMissingError, StartError, DifferentTextError) as error:
        sys.exit(f"benchmark: {error}")
    file = arguments.output / "streams.json"
    report = {"machine": machine.describe(), "rounds": [{name: asdict(each[name]) for name in each} for each in rounds]}
    file.write_text(json.dumps(report, indent=1) + "\n")
    _print_table(console, rounds)
    for name in rounds[0]:
        spread = ratios([each[name].first for each in rounds], [each[name].last for each in rounds])
        console.print(f"{name}, first event / last event: {spread.verdict(TARGET)}", highlight=False, soft_wrap=True)
    console.print(f"wrote {file}", highlight=False, soft_wrap=True)


def _measure(arguments: argparse.Namespace, console: Console) -> list[dict[str, Watched]]:
    cache, logs = arguments.output / "cache", arguments.output / "logs"
    cache.mkdir(parents=True, exist_ok=True)
    checkpoint = make_checkpoint("base", arguments.configs, cache)
    (request,) = RequestGroup("stream", arguments.seed, (("ocr", ANSWER_TOKENS),)).requests(attempt=0)
    message, short = (replace(request, answer_tokens=tokens).to_task_request(1) for tokens in (ANSWER_TOKENS, 2))
    with (
        running(OURS, checkpoint, logs / "streams", EXACT_DTYPE, extra_models=[_STREAM_MODEL]) as server,
        Client(server.grpc_url, timeout=_TIMEOUT_SECONDS) as client,
    ):
        ways = {
            "gRPC": partial(grpc_pieces, client, request.image),
            "SSE": partial(sse_pieces, server.http_url, request.image),
        }
        for stream in ways.values():
            list(stream(short))  # caches the embedding: of the file, and of its base64 text
        text = client.run(request.image, message).text
        streams = {name: partial(stream, message) for name, stream in ways.items()}
        return [_round(streams, text, number, console) for number in range(arguments.rounds)]


def _round(
    streams: Mapping[str, Callable[[], Iterator[str]]], text: str, number: int, console: Console
) -> dict[str, Watched]:
    """Watch a stream of each kind. Every other round reverses their order."""
    watched = {}
    for name in list(streams)[:: -1 if number % 2 else 1]:
        watched[name] = each = watch(streams[name], text)
        console.print(
            f"round {number + 1}, {name}: {each.first:.3f} s, {each.last:.2f} s", highlight=False, soft_wrap=True
        )
    return {name: watched[name] for name in streams}


def watch(start: Callable[[], Iterator[str]], text: str) -> Watched:
    """Time the events of a stream.

    Args:
        start: starts it; yields the piece of text of each event, and at last the whole text.
        text: of the unary answer.

    Raises:
        DifferentTextError: the pieces, or the whole text, are not `text`.
    """
    begin = time.perf_counter()
    arrivals = [(time.perf_counter() - begin, piece) for piece in start()]
    *pieces, last = [piece for _, piece in arrivals]
    if "".join(pieces) != text or last != text:
        raise DifferentTextError(f"got {''.join(pieces)!r} and then {last!r}, expected {text!r}")
    return Watched(arrivals[0][0], arrivals[-1][0], len(arrivals))


def grpc_pieces(client: Client, image: bytes, request: TaskRequest) -> Iterator[str]:
    """Stream over gRPC with our client."""
    with client.stream(image, request) as events:
        for event in events:
            if isinstance(event, TextDelta):
                yield event.text
            elif isinstance(event, Finished):
                yield event.answer.text


def sse_pieces(url: str, image: bytes, request: TaskRequest) -> Iterator[str]:
    """Stream over HTTP: server-sent events whose data is JSON."""
    body = {"IMAGE": base64.b64encode(image).decode(), "REQUEST": json_format.MessageToJson(request)}
    call = urllib.request.Request(  # noqa: S310 - the server is ours
        f"{url}/v2/models/florence2_stream/generate_stream",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Accept": "text/event-stream"},
    )
    with urllib.request.urlopen(call, timeout=_TIMEOUT_SECONDS) as lines:  # noqa: S310
        for line in lines:
            if line.startswith(_DATA):
                event = json_format.Parse(json.loads(line[len(_DATA) :])["RESPONSE"], StreamEvent())
                yield event.text_delta or event.response.text


def _print_table(console: Console, rounds: Sequence[Mapping[str, Watched]]) -> None:
    title = f"{ANSWER_TOKENS} tokens of text, {len(rounds)} rounds: median (range)"
    table = Table("", *_FIGURES.values(), title=title, title_justify="left")
    for name in rounds[0]:
        table.add_row(name, *(str(Spread.of([getattr(each[name], figure) for each in rounds])) for figure in _FIGURES))
    console.print(table)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.comparison.streams",
        description="The time to a stream's first event beside that to its last, over gRPC and SSE.",
    )
    parser.add_argument("--rounds", type=int, default=3, help="default %(default)s")
    add_arguments(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
