"""A line for each question, for who has to find out what became of one. Neither images nor words are in it."""

import json
from datetime import UTC, datetime
from typing import TextIO

from florence2_adapter.outcomes import Outcome
from florence2_adapter.pending import PendingRequest

_TRACE_ID = 1  # among the fields of a traceparent, https://www.w3.org/TR/trace-context/#traceparent-header
_DECIMALS = 4


class RequestLog:
    """Writes JSON, one object a line.

    Args:
        stream: where to; None writes nothing.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, pending: PendingRequest, outcome: Outcome) -> None:
        """Say what became of a question of a Triton request."""
        if self._stream is None:
            return
        line: dict[str, object] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": pending.request_id,
            "trace_id": _trace_id(pending.traceparent),
            "task": outcome.task,
            "outcome": outcome.name,
            "seconds": round(outcome.seconds, _DECIMALS),
        }
        if outcome.answer is not None and outcome.times is not None:
            times, usage = outcome.times, outcome.answer.usage
            line |= {
                "queue_seconds": round(times.queue, _DECIMALS),
                "encode_seconds": round(times.encode, _DECIMALS),
                "decode_seconds": round(times.decode, _DECIMALS),
                "first_token_seconds": round(times.first_token, _DECIMALS),
                "prompt_tokens": usage.prompt_tokens,
                "generated_tokens": usage.generated_tokens,
                "image_embedding_cached": usage.image_embedding_cached,
            }
        self._stream.write(json.dumps(line) + "\n")  # one write: lines of several threads do not mix
        self._stream.flush()


def _trace_id(traceparent: str) -> str:
    fields = traceparent.split("-")
    return fields[_TRACE_ID] if len(fields) > _TRACE_ID else ""
