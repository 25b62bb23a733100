"""`single`: one caller, one caption at a time, our server against bare `generate()` without any server."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from types import TracebackType
from typing import Any

from benchmarks.callers import OurCaller, Reply
from benchmarks.comparison import Mismatch, mismatches
from benchmarks.load import Outcome
from benchmarks.measurement import percentile
from benchmarks.memory import PeakMemory
from benchmarks.progress import RunProgress
from benchmarks.questions import Question
from benchmarks.reference import Pool
from benchmarks.servers import running

SEARCHES = {"greedy": 1, "three beams": 3}
_STOP_SECONDS = 10.0


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
            [sys.executable, "-m", "benchmarks.bare_generate", os.fspath(self._checkpoint), self._dtype],
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

    def ask(self, question: Question, num_beams: int) -> tuple[Reply, float]:
        """The answer to a question, and its seconds as the process itself counts them, the pipe left out."""
        self._image.write_bytes(question.image)
        asked = {
            "image": os.fspath(self._image),
            "prompt": question.prompt,
            "answer_tokens": question.answer_tokens,
            "num_beams": num_beams,
        }
        assert self._process.stdin is not None, "a pipe was asked for"
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._read_line())
        return Reply(answer["text"], answer["decode_seconds"]), answer["seconds"]

    def _read_line(self) -> str:
        assert self._process.stdout is not None, "a pipe was asked for"
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
        Per search, and in it per round and side, the figures; and the answers that are not the expected ones.
    """
    progress.say("single: starting ours and bare generate()")
    results: list[dict[str, Any]] = [{"name": name, "rounds": []} for name in SEARCHES]
    wrong: list[Mismatch] = []
    with running("ours", checkpoint, logs, dtype) as server, BareGenerate(checkpoint, dtype) as bare:
        ours = OurCaller(server.grpc_url)
        stamp = 0
        for number in range(rounds):
            for result, (search, beams) in zip(results, SEARCHES.items(), strict=True):
                figures = {}
                for side, process_id in (("ours", server.process_id), ("bare", bare.process_id)):
                    stamp += 1
                    where = f"single, {search}, round {number + 1}, {side}"
                    questions = [question.stamped(f"single {stamp}") for question in pools[search].questions]
                    asker = bare if side == "bare" else ours
                    _outcome(asker, questions[0].stamped("warm-up"), beams)
                    with (
                        progress.measurement(where, len(questions)) as advance,
                        PeakMemory(process_id) as memory,
                    ):
                        outcomes = []
                        for question in questions:
                            outcomes.append(_outcome(asker, question, beams))
                            advance()
                    wrong += mismatches(where, outcomes, pools[search].expected)
                    figures[side] = _figures(outcomes, memory.peak_bytes)
                result["rounds"].append(figures)
        ours.close()
    return results, wrong


def _outcome(asker: OurCaller | BareGenerate, question: Question, num_beams: int) -> Outcome:
    begin = time.perf_counter()
    if isinstance(asker, BareGenerate):
        reply, seconds = asker.ask(question, num_beams)
    else:
        reply = asker.ask(question, num_beams)
        seconds = time.perf_counter() - begin
    return Outcome(question, reply, 0.0, seconds)


def _figures(outcomes: Sequence[Outcome], peak_memory: int) -> dict[str, float]:
    latencies = [outcome.latency for outcome in outcomes]
    return {
        "latency_mean": mean(latencies),
        "latency_p50": percentile(latencies, 50),
        "latency_p95": percentile(latencies, 95),
        "decode_mean": mean(outcome.reply.decode_seconds or 0.0 for outcome in outcomes),
        "tokens_per_second": sum(outcome.question.answer_tokens for outcome in outcomes) / sum(latencies),
        "peak_memory": peak_memory,
    }
