"""`overhead`: a round-trip with next to no computation.

Our server with the demo checkpoint, an image whose embedding is cached, and one token to generate; and, in the same
tritonserver, a model that does nothing, which shows the share of Triton and its Python backend.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.comparison.sides import EMPTY_MODEL, EmptyCaller
from benchmarks.harness.callers import Caller, OurCaller
from benchmarks.harness.progress import RunProgress
from benchmarks.harness.requests import Request, caption_groups
from benchmarks.harness.servers import OURS, running
from benchmarks.harness.spread import percentile

_WARM_UP_REQUESTS = 20


class NotCachedError(Exception):
    """Our server encoded an image whose embedding should have been cached."""


def run(
    seed: int, logs: Path, dtype: str, round_trips: int, rounds: int, progress: RunProgress
) -> list[dict[str, Any]]:
    """Measure both models in alternation.

    Returns:
        One load; for each round and side the percentiles in seconds.

    Raises:
        NotCachedError: our server encoded the image again.
    """
    progress.say("overhead: starting ours, with an empty model beside it")
    request = replace(caption_groups(1, seed)[0].requests(attempt=0)[0], answer_tokens=1)
    result: dict[str, Any] = {"name": "one token", "rounds": []}
    with running(OURS, OURS.model / "demo_checkpoint", logs, dtype, extra_models=[EMPTY_MODEL]) as server:
        callers: dict[str, Caller] = {"ours": OurCaller(server.grpc_url), "empty": EmptyCaller(server.grpc_url)}
        for number in range(rounds):
            figures = {}
            for name, caller in callers.items():
                with progress.measurement(f"overhead, round {number + 1}, {name}", round_trips) as advance:
                    seconds = _round_trips(caller, request, round_trips, advance)
                if name == "ours" and not caller.send(request, 1).embedding_was_cached:
                    raise NotCachedError("overhead: our server encoded the same image again")
                figures[name] = {"latency_p50": percentile(seconds, 50), "latency_p95": percentile(seconds, 95)}
            result["rounds"].append(figures)
        for caller in callers.values():
            caller.close()
    return [result]


def _round_trips(caller: Caller, request: Request, count: int, advance: Callable[[], None]) -> list[float]:
    """The seconds of each of `count` round-trips, after a warm-up."""
    for _ in range(_WARM_UP_REQUESTS):
        caller.send(request, 1)
    seconds = []
    for _ in range(count):
        begin = time.perf_counter()
        caller.send(request, 1)
        seconds.append(time.perf_counter() - begin)
        advance()
    return seconds
