"""What `Client` and `AsyncClient` share: all that needs no I/O."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from florence2 import v1
from florence2._answers import Answer, TruncatedAnswerError
from florence2._arguments import check_text, check_texts
from florence2._attempts import Retry
from florence2._calls import Call
from florence2._destination import TLS, AccessToken, Destination, Keepalive
from florence2._options import (
    CallOptions,
    TaskOptions,
    check_priority,
    check_request_id,
    check_timeout,
    refuse_unknown,
    set_generation,
)
from florence2._questions import Answered, Question
from florence2.errors import require_type
from florence2.prompts import check_request

_DEFAULT_TIMEOUT = 60.0


class BaseClient(ABC):
    """Settings, the checks before a call, and what becomes of its answer.

    Its constructor is the one of both clients; `Client` documents it.
    """

    def __init__(
        self,
        url: str | Sequence[str] = "localhost:8001",
        *,
        model: str = "florence2",
        model_version: str = "",
        timeout: float | None = _DEFAULT_TIMEOUT,
        tls: TLS | None = None,
        keepalive: Keepalive = Keepalive(),  # noqa: B008  # frozen
        channel_args: Sequence[tuple[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
        access_token: AccessToken | None = None,
        retry: Retry | None = Retry(),  # noqa: B008  # frozen
    ) -> None:
        self._timeout = check_timeout(timeout)
        self._is_closed = False
        urls = [check_text("url", url)] if isinstance(url, str) else check_texts("url", url)
        self._connect(
            Destination(
                tuple(urls), model, model_version, tls, keepalive, channel_args, headers or {}, access_token, retry
            )
        )

    @abstractmethod
    def _connect(self, destination: Destination) -> None:
        """Make the transport."""

    def _task_call(self, question: Question[Any], options: TaskOptions) -> Call:
        """The call that a task method makes."""
        set_generation(question.request, options)
        return self._call(question.request, options)

    def _run_call(self, request: v1.TaskRequest, options: CallOptions) -> Call:
        """The call that `run` makes: of a copy, for the request is the caller's."""
        require_type("request", request, v1.TaskRequest)
        refuse_unknown(options, CallOptions.__optional_keys__)
        copy = v1.TaskRequest()
        copy.CopyFrom(request)
        return self._call(copy, options)

    def _call(self, request: v1.TaskRequest, options: CallOptions) -> Call:
        check_request(request)
        # The answer is decoded here: the server need not, and the response stays small.
        request.raw = True
        return Call(
            request,
            priority=check_priority(options.get("priority")),
            timeout=check_timeout(options.get("timeout", self._timeout)),
            started=time.monotonic(),
            request_id=check_request_id(options.get("request_id")),
        )

    def _require_open(self) -> None:
        # Like a file's: no Florence2Error, for no server and no input has to do with it.
        if self._is_closed:
            raise RuntimeError("the client is closed")

    @staticmethod
    def _whole_result(answer: Answer, question: Question[Answered]) -> Answered:
        """The bare result of a task method.

        Raises:
            TruncatedAnswerError: the answer is not whole.
        """
        if answer.is_truncated:
            raise TruncatedAnswerError(answer)
        # The task decides the type; the question names both.
        assert isinstance(answer.result, question.result_type)
        return answer.result
