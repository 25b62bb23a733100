"""The request log: one line of JSON for each request, without its image and without text of prompt or answer."""

import json
from datetime import UTC, datetime
from typing import TextIO

from florence2.adapter_names import is_adapter_name

from florence2_server.stub.outcomes import Outcome, StepOutcome
from florence2_server.stub.pending_request import PendingRequest

_TRACE_ID = 1  # index among a traceparent's fields, https://www.w3.org/TR/trace-context/#traceparent-header
_DECIMALS = 4


class RequestLog:
    """Writes JSON, one object a line.

    Args:
        stream: where to write; None disables the log.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, pending: PendingRequest, outcome: Outcome) -> None:
        """Log how a request ended."""
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
        if is_adapter_name(outcome.adapter):  # anything else is a caller's text, of any length
            line["adapter"] = outcome.adapter
        line |= _of_step(outcome.steps[0]) if outcome.is_single_step and outcome.steps else _of_steps(outcome)
        self._stream.write(json.dumps(line) + "\n")  # one write, so that lines of several threads do not mix
        self._stream.flush()


def _of_step(step: StepOutcome) -> dict[str, object]:
    """What is logged of a request with one step."""
    if step.usage is None or step.times is None:
        return {}
    return {
        "queue_seconds": round(step.times.queue, _DECIMALS),
        "encode_seconds": round(step.times.encode, _DECIMALS),
        "decode_seconds": round(step.times.decode, _DECIMALS),
        "first_token_seconds": round(step.times.first_token, _DECIMALS),
        "prompt_tokens": step.usage.prompt_tokens,
        "generated_tokens": step.usage.generated_tokens,
        "image_embedding_cached": step.usage.image_embedding_cached,
    }


def _of_steps(outcome: Outcome) -> dict[str, object]:
    """What is logged of a request with several steps."""
    if not outcome.steps:
        return {}
    usages = [step.usage for step in outcome.steps if step.usage is not None]
    return {
        "steps": len(outcome.steps),
        "failed_steps": len(outcome.steps) - len(usages),
        "prompt_tokens": sum(usage.prompt_tokens for usage in usages),
        "generated_tokens": sum(usage.generated_tokens for usage in usages),
    }


def _trace_id(traceparent: str) -> str:
    fields = traceparent.split("-")
    return fields[_TRACE_ID] if len(fields) > _TRACE_ID else ""
