"""`overhead`: a round trip in which next to nothing is computed.

The demo checkpoint, a picture whose embedding is cached, one token; and a model that does nothing, on the same Triton,
for what Triton and its Python backend take by themselves.
"""

import time
from pathlib import Path
from typing import Any

from benchmarks.callers import Caller, EmptyCaller, OurCaller
from benchmarks.measurement import percentile
from benchmarks.progress import RunProgress
from benchmarks.questions import Question, caption_subjects
from benchmarks.servers import EMPTY, OURS, running

_WARM_UP = 20


class NotCachedError(Exception):
    """Our server encoded a picture that it had just encoded."""


def run(
    seed: int, logs: Path, dtype: str, round_trips: int, rounds: int, progress: RunProgress
) -> list[dict[str, Any]]:
    """Measure both models in alternation.

    Returns:
        One load; per round and side the percentiles of seconds.

    Raises:
        NotCachedError: nothing is measured where the image cache does not work.
    """
    progress.say("overhead: starting ours, with an empty model beside it")
    question = caption_subjects(1, seed)[0].questions(attempt=0)[0]
    result: dict[str, Any] = {"name": "one token", "rounds": []}
    with running("ours", OURS / "demo_checkpoint", logs, dtype, extra_models=[EMPTY]) as server:
        callers: dict[str, Caller] = {"ours": OurCaller(server.grpc_url), "empty": EmptyCaller(server.grpc_url)}
        question = _one_token(question)
        for number in range(rounds):
            figures = {}
            for side, caller in callers.items():
                for _ in range(_WARM_UP):
                    reply = caller.ask(question, 1)
                with progress.measurement(f"overhead, round {number + 1}, {side}", round_trips) as advance:
                    seconds = []
                    for _ in range(round_trips):
                        begin = time.perf_counter()
                        reply = caller.ask(question, 1)
                        seconds.append(time.perf_counter() - begin)
                        advance()
                if side == "ours" and not reply.embedding_was_cached:
                    raise NotCachedError("overhead: our server encoded the same picture again")
                figures[side] = {"latency_p50": percentile(seconds, 50), "latency_p95": percentile(seconds, 95)}
            result["rounds"].append(figures)
        for caller in callers.values():
            caller.close()
    return [result]


def _one_token(question: Question) -> Question:
    return Question(question.name, question.task, question.image, question.request, question.prompt, answer_tokens=1)
