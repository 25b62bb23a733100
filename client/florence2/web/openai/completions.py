"""Chat completions and their chunks, in the form of OpenAI's API."""

import time
from dataclasses import dataclass, field
from typing import Any, Final

from florence2 import v1
from florence2.client.answers import Answer, FinishReason
from florence2.results import Text

_ID_PREFIX: Final = "chatcmpl-"


@dataclass(frozen=True)
class Completion:
    """What the completion and all of its chunks have in common."""

    request_id: str
    """Identifies the request in the logs; the completion's id is this with a prefix."""
    model: str
    """The model id."""
    fingerprint: str | None = None
    """Identifies the checkpoint; None if it is not known."""
    created: int = field(default_factory=lambda: int(time.time()))
    """Seconds since 1970."""

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The completion of an answer."""
        message = {"role": "assistant", "content": content_of(answer), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}
        return {**self._common("chat.completion"), "choices": [choice], "usage": usage_of(answer.usage)}

    def chunk(self, delta: dict[str, Any], finish_reason: FinishReason | None = None) -> dict[str, Any]:
        """A chunk of a stream.

        Args:
            delta: what it adds to the message.
            finish_reason: why the answer ends; None if it does not end here.
        """
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self._common("chat.completion.chunk"), "choices": [choice]}

    def usage_chunk(self, usage: v1.Usage) -> dict[str, Any]:
        """The chunk without a choice, which ends a stream whose caller wants to know the usage."""
        return {**self._common("chat.completion.chunk"), "choices": [], "usage": usage_of(usage)}

    def _common(self, kind: str) -> dict[str, Any]:
        identity = {"id": f"{_ID_PREFIX}{self.request_id}", "object": kind, "created": self.created}
        return {**identity, "model": self.model, "system_fingerprint": self.fingerprint}


def content_of(answer: Answer) -> str:
    """The text of a message: that of a text, else the result as JSON."""
    return answer.result.text if isinstance(answer.result, Text) else answer.result.to_json()


def usage_of(usage: v1.Usage) -> dict[str, int]:
    """The tokens of an answer; of a cascade, the sum of its steps."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.generated_tokens,
        "total_tokens": usage.prompt_tokens + usage.generated_tokens,
    }
