"""What comes back: a response's bytes, decoded."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from google.protobuf.message import DecodeError

from florence2 import v1
from florence2._calls import Call
from florence2.errors import Florence2Error, InvalidArgumentError, ServerError, located
from florence2.parsing import decode
from florence2.results import Result
from florence2.scores import TokenScores
from florence2.tasks import task_of

FinishReason: TypeAlias = Literal["stop", "length"]

_FINISH_REASONS: dict[v1.FinishReason, FinishReason] = {
    v1.FinishReason.FINISH_REASON_STOP: "stop",
    v1.FinishReason.FINISH_REASON_LENGTH: "length",
}


@dataclass(frozen=True)
class Answer:
    """An answer with all that the server says about it, as `run` returns it."""

    result: Result
    """The decoded answer, its coordinates in pixels of the image as displayed. It has scores where
    `token_scores` are known."""
    text: str
    """The generated text as the model wrote it, special tokens and all: `"</s><s>A dog.</s>"`."""
    image_size: tuple[int, int]
    """Width and height of the image as displayed, in pixels."""
    finish_reason: FinishReason
    """`"stop"`: the model ended its answer. `"length"`: it was cut at `max_new_tokens` or at the model's last
    position; `result` holds what is whole in it."""
    usage: v1.Usage
    """What the answer cost: tokens, and milliseconds in each stage."""
    token_scores: TokenScores | None = None
    """The log-probability of each generated token, and where it ends in `text`; None where the server does not
    say."""
    request_id: str = ""
    """Names the request in the server's log."""
    url: str = ""
    """The server that answered."""

    @property
    def is_truncated(self) -> bool:
        """Whether the answer was cut before the model ended it."""
        return self.finish_reason == "length"


class TruncatedAnswerError(Florence2Error):
    """The answer was cut at `max_new_tokens` or at the model's last position.

    The task methods return a bare result, which has no place to say that something is missing; so they raise
    this. `answer.result` holds what is whole. `run` returns such an answer instead.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__(
            f"the answer was cut after {answer.usage.generated_tokens} tokens; "
            "what is whole is in this error's answer.result"
        )
        self.answer = answer

    def __reduce__(self) -> tuple[type["TruncatedAnswerError"], tuple[Answer]]:
        # By default an exception is unpickled from its message, which is not what the constructor takes.
        return type(self), (self.answer,)


def read_answer(call: Call, payload: bytes, url: str) -> Answer:
    """The answer in the bytes of a `TaskResponse` to a call, from the server at `url`.

    Raises:
        ServerError: the bytes are no response that a florence2 server gives.
    """
    with located(url, call.request_id):
        return _read_answer(call, payload, url)


def _read_answer(call: Call, payload: bytes, url: str) -> Answer:
    response = _read_response(payload)
    image_size = (response.image_size.width, response.image_size.height)
    if min(image_size) < 1:
        raise ServerError(f"the response's image_size is {image_size}, expected at least 1 x 1 pixels")
    if response.finish_reason not in _FINISH_REASONS:
        raise ServerError(f"the response's finish_reason is {response.finish_reason}, which is unknown here")
    try:
        token_scores = TokenScores.of_response(response)
        # decode() takes what is no task for a free prompt.
        result = decode(task_of(call.request) or "", response.text, image_size, token_scores)
    except InvalidArgumentError as error:
        raise ServerError(f"the response's token scores do not fit its text: {error}") from error
    return Answer(
        result=result,
        text=response.text,
        image_size=image_size,
        finish_reason=_FINISH_REASONS[response.finish_reason],
        usage=response.usage,
        token_scores=token_scores,
        request_id=call.request_id,
        url=url,
    )


def _read_response(payload: bytes) -> v1.TaskResponse:
    try:
        response = v1.TaskResponse.FromString(payload)
    except DecodeError as error:
        raise ServerError(f"the response's {len(payload)} bytes are not a TaskResponse") from error
    return response
