"""One way to ask each server a question, and what comes back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tritonclient.grpc
from florence2.v1 import TaskResponse

from benchmarks.questions import Question

# Far beyond every answer: a caller that waits as long has found a server that hangs.
_CALL_SECONDS = 900.0


@dataclass(frozen=True)
class Reply:
    """A server's answer.

    Attributes:
        text: with special tokens.
        decode_seconds: the server's own account of its decoding; None where it gives none.
        embedding_was_cached: whether it says that the picture had not to be encoded.
    """

    text: str
    decode_seconds: float | None = None
    embedding_was_cached: bool = False


class Caller(Protocol):
    """Asks a server; safe to share among threads."""

    def ask(self, question: Question, num_beams: int) -> Reply:
        """The answer to a question."""

    def close(self) -> None:
        """Give the connection back."""


class _Caller:
    def __init__(self, url: str) -> None:
        self._client: Any = tritonclient.grpc.InferenceServerClient(url)

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()

    def _infer(self, model: str, inputs: list[Any], output: str) -> bytes:
        result = self._client.infer(model, inputs, client_timeout=_CALL_SECONDS)
        return bytes(result.as_numpy(output).item())


class OurCaller(_Caller):
    """Asks our server."""

    def ask(self, question: Question, num_beams: int) -> Reply:
        """The answer to a question."""
        request = question.our_request(num_beams).SerializeToString()
        inputs = [_tensor("IMAGE", question.image, "BYTES"), _tensor("REQUEST", request, "BYTES")]
        response = TaskResponse.FromString(self._infer("florence2", inputs, "RESPONSE"))
        usage = response.usage
        return Reply(response.text, usage.decode_milliseconds / 1000, usage.image_embedding_cached)


class ConventionalCaller(_Caller):
    """Asks the conventional server."""

    def ask(self, question: Question, num_beams: int) -> Reply:
        """The answer to a question."""
        inputs = [
            _tensor("IMAGE", question.image, "BYTES"),
            _tensor("PROMPT", question.prompt.encode(), "BYTES"),
            _tensor("ANSWER_TOKENS", question.answer_tokens, "INT32"),
            _tensor("NUM_BEAMS", num_beams, "INT32"),
        ]
        return Reply(self._infer("florence2_conventional", inputs, "TEXT").decode())


class EmptyCaller(_Caller):
    """Asks the model that does nothing."""

    def ask(self, question: Question, num_beams: int) -> Reply:  # noqa: ARG002 - it is not interested
        """The empty answer."""
        return Reply(self._infer("empty", [_tensor("IMAGE", question.image, "BYTES")], "RESPONSE").decode())


CALLERS: dict[str, Callable[[str], Caller]] = {"ours": OurCaller, "conventional": ConventionalCaller}


def _tensor(name: str, value: object, datatype: str) -> Any:
    """A batch of one row with one element."""
    tensor = tritonclient.grpc.InferInput(name, [1, 1], datatype)
    return tensor.set_data_from_numpy(np.array([[value]], dtype=np.object_ if datatype == "BYTES" else np.int32))
