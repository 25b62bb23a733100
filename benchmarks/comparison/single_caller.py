"""`single`: one caller, one caption at a time, our server against bare `generate()` without any server."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from types import TracebackType
from typing import Any

from benchmarks.comparison.peak_memory import PeakMemory
from benchmarks.harness.callers import OurCaller, Response
from benchmarks.harness.load import Exchange
from benchmarks.harness.mismatches import Mismatch, mismatches
from benchmarks.harness.progress import RunProgress
from benchmarks.harness.reference import Pool
from benchmarks.harness.requests import Request
from benchmarks.harness.servers import OURS, running
from benchmarks.harness.spread import percentile

SEARCHES = {"greedy": 1, "three beams": 3}
_STOP_SECONDS = 10.0

_Send = Callable[[Request, int], Exchange]


class BareGenerateError(Exception):
    """The process with bare `generate()` ended too early."""


class BareGenerate:
    """The process of `bare_generate`, while a `with` block runs."""

    def __init__(self, checkpoint: Path, dtype: str) -> None:
        self._checkpoint = checkpoint
        self._dtype = dtype
        self._image = Path(tempfile.mkstemp(prefix="florence2-benchmark-", suffix=".jpg")[1])

    def __enter__(self) -> "BareGenerate":
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.comparison.bare_generate", os.fspath(self._checkpoint), self._dtype],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self._read_line()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def process_id(self) -> int:
        """The process's id."""
        return self._process.pid

    def send(self, request: Request, num_beams: int) -> Exchange:
        """Process a request; the latency is the process's own measurement, which excludes the pipe."""
        self._image.write_bytes(request.image)
        message = {
            "image": os.fspath(self._image),
            "prompt": request.prompt,
            "answer_tokens": request.answer_tokens,
            "num_beams": num_beams,
        }
        assert self._process.stdin is not None, "opened as a pipe"
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._read_line())
        return Exchange(request, Response(answer["text"], answer["decode_seconds"]), 0.0, answer["seconds"])

    def _read_line(self) -> str:
        assert self._process.stdout is not None, "opened as a pipe"
        line = self._process.stdout.readline()
        if not line:
            raise BareGenerateError(f"bare generate() ended with exit status {self._process.wait()}")
        return line

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._image.unlink(missing_ok=True)


def run(
    pools: Mapping[str, Pool], checkpoint: Path, logs: Path, dtype: str, rounds: int, progress: RunProgress
) -> tuple[list[dict[str, Any]], list[Mismatch]]:
    """Measure both searches, the two sides in alternation.

    Returns:
        For each search, round and side the figures; and the responses that differ from the expected answers.
    """
    progress.say("single: starting ours and bare generate()")
    results: list[dict[str, Any]] = [{"name": search, "rounds": []} for search in SEARCHES]
    wrong: list[Mismatch] = []
    stamp = 0
    with running(OURS, checkpoint, logs, dtype) as server, BareGenerate(checkpoint, dtype) as bare:
        ours = OurCaller(server.grpc_url)
        sides: dict[str, tuple[_Send, int]] = {
            "ours": (lambda request, num_beams: _timed(ours, request, num_beams), server.process_id),
            "bare": (bare.send, bare.process_id),
        }
        for number in range(rounds):
            for result in results:
                figures = {}
                for side, (send, process_id) in sides.items():
                    stamp += 1
                    pool, where = pools[result["name"]], f"single, {result['name']}, round {number + 1}, {side}"
                    requests = [request.stamped(f"single {stamp}") for request in pool.requests]
                    with PeakMemory(process_id) as memory:
                        exchanges = _send_all(send, requests, SEARCHES[result["name"]], where, progress)
                    wrong += mismatches(where, exchanges, pool.expected)
                    figures[side] = _figures(exchanges, memory.peak_bytes)
                result["rounds"].append(figures)
        ours.close()
    return results, wrong


def _timed(caller: OurCaller, request: Request, num_beams: int) -> Exchange:
    begin = time.perf_counter()
    response = caller.send(request, num_beams)
    return Exchange(request, response, 0.0, time.perf_counter() - begin)


def _send_all(
    send: _Send, requests: Sequence[Request], num_beams: int, where: str, progress: RunProgress
) -> list[Exchange]:
    """Send the requests one after another, after one to warm up."""
    send(requests[0].stamped("warm-up"), num_beams)
    exchanges = []
    with progress.measurement(where, len(requests)) as advance:
        for request in requests:
            exchanges.append(send(request, num_beams))
            advance()
    return exchanges


def _figures(exchanges: Sequence[Exchange], peak_memory: int) -> dict[str, float]:
    latencies = [exchange.latency for exchange in exchanges]
    return {
        "latency_mean": mean(latencies),
        "latency_p50": percentile(latencies, 50),
        "latency_p95": percentile(latencies, 95),
        "decode_mean": mean(exchange.response.decode_seconds or 0.0 for exchange in exchanges),
        "tokens_per_second": sum(exchange.request.answer_tokens for exchange in exchanges) / sum(latencies),
        "peak_memory": peak_memory,
    }
