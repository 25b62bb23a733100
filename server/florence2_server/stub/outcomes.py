"""What became of a question, for whoever counts and logs."""

from dataclasses import dataclass

import grpc
from florence2.engine.v1.engine_pb2 import GenerateResponse
from florence2.tasks import task_of
from florence2.v1 import TaskRequest

_MILLISECONDS = 1000
UNKNOWN_TASK = "unknown"
_FREE_PROMPT = "free_prompt"


@dataclass(frozen=True)
class Times:
    """Where the seconds went that an answer took, from when Triton handed its question over.

    Attributes:
        total: until the answer was there.
        queue: waiting for a slot and for the prefill.
        encode: of image and prompt.
        decode: from the first decode step to the last.
        first_token: until the first token was there; no caller sees it before the whole answer.
    """

    total: float
    queue: float
    encode: float
    decode: float
    first_token: float

    @classmethod
    def of(cls, answer: GenerateResponse, total: float) -> "Times":
        """The times of an answer that took `total` seconds here."""
        encode = answer.usage.encode_milliseconds / _MILLISECONDS
        decode = answer.usage.decode_milliseconds / _MILLISECONDS
        first_token = total - decode + answer.first_token_milliseconds / _MILLISECONDS
        return cls(total, max(0.0, total - encode - decode), encode, decode, first_token)


@dataclass(frozen=True)
class Outcome:
    """What became of one question.

    Attributes:
        task: a field's name in `TaskRequest`; `free_prompt` for a prompt of no known task, `unknown` for what could not
            be read.
        status: OK, or why there is no answer.
        seconds: from when Triton handed it over to the answer.
        answer: where the status is OK.
    """

    task: str
    status: grpc.StatusCode
    seconds: float
    answer: GenerateResponse | None = None

    @property
    def name(self) -> str:
        """The status, as metrics and logs have it: `ok`, `invalid_argument`, ..."""
        return self.status.name.lower()

    @property
    def times(self) -> Times | None:
        """Of an answer."""
        return None if self.answer is None else Times.of(self.answer, self.seconds)


def task_name(request: TaskRequest) -> str:
    """What metrics and logs call the task of a request."""
    task = task_of(request)
    return _FREE_PROMPT if task is None else task.name
