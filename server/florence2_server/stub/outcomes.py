"""How requests and their steps ended, for metrics and the request log."""

from dataclasses import dataclass

import grpc
from florence2.v1 import Usage

from florence2_server.v1.engine_pb2 import GenerateResponse

_MILLISECONDS = 1000
UNKNOWN_TASK = "unknown"


@dataclass(frozen=True)
class Times:
    """How a successful generation spent its time, in seconds.

    Attributes:
        total: from the receipt of the request, or the start of a later step, to the completion.
        queue: waiting for a slot, for the decoding of the image and for prefill.
        encode: encoding image and prompt.
        decode: from the first decode step to the last.
        first_token: until the first token.
    """

    total: float
    queue: float
    encode: float
    decode: float
    first_token: float

    @classmethod
    def of(cls, completion: GenerateResponse, total: float) -> "Times":
        """The times of a generation that took `total` seconds."""
        encode = completion.usage.encode_milliseconds / _MILLISECONDS
        decode = completion.usage.decode_milliseconds / _MILLISECONDS
        first_token = total - decode + completion.first_token_milliseconds / _MILLISECONDS
        return cls(total, max(0.0, total - encode - decode), encode, decode, first_token)


@dataclass(frozen=True)
class StepOutcome:
    """How one step of a request ended: one generation.

    Attributes:
        task: the step's task; `free_prompt` for a prompt of no known task.
        status: OK, or the error's status.
        seconds: from the start of the step to its end; of a request's only step, those of the request.
        completion: what the engine generated; None unless the status is OK.
    """

    task: str
    status: grpc.StatusCode
    seconds: float = 0.0
    completion: GenerateResponse | None = None

    @property
    def usage(self) -> Usage | None:
        """The tokens; None unless the status is OK."""
        return None if self.completion is None else self.completion.usage

    @property
    def times(self) -> Times | None:
        """How the time was spent; None unless the status is OK."""
        return None if self.completion is None else Times.of(self.completion, self.seconds)

    @property
    def name(self) -> str:
        """The status in metrics: `ok`, `invalid_argument`, ..."""
        return self.status.name.lower()


@dataclass(frozen=True)
class Outcome:
    """How one request ended.

    Attributes:
        task: its task, `free_prompt` for a prompt of no known task, `caption_grounding`, `region_analysis` or
            `task_list`; `unknown` for a request that was not parsed.
        status: OK, or the error's status.
        seconds: from the request's receipt by the stub to its response.
        steps: its steps that have ended, in this order.
        is_single_step: whether the request is its only step.
        adapter: the adapter that the request names, whether or not there is one; empty for none.
    """

    task: str
    status: grpc.StatusCode
    seconds: float
    steps: tuple[StepOutcome, ...] = ()
    is_single_step: bool = True
    adapter: str = ""

    @property
    def name(self) -> str:
        """The status in metrics and logs: `ok`, `invalid_argument`, ..."""
        return self.status.name.lower()
