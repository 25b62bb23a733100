"""One image of a run: reading it, sending it until a server answers, and recording the outcome."""

import asyncio
import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, Unpack

from florence2 import v1
from florence2.bulk.items import Item
from florence2.bulk.lines import error_line, failed_task, kept, result_line
from florence2.bulk.outage import GaveUpError, Outage, backoff_seconds
from florence2.bulk.pictures import PictureFolder
from florence2.bulk.state import Record
from florence2.bulk.tasks import BulkTask, bulk_request
from florence2.client.answers import Answer
from florence2.errors import (
    AccessDeniedError,
    DeadlineExceededError,
    Florence2Error,
    InvalidArgumentError,
    ModelNotFoundError,
    RequestCancelledError,
    ServerError,
    UnavailableError,
)
from florence2.options import CallOptions, TaskOptions

_ATTEMPTS: Final = 3  # of a request that a server in good health does not answer
_READS: Final = 5  # of a file in a bucket
_LASTING_READ_ERRORS: Final = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError)

_PASSING: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE)
"""Errors of reading a local file that may pass, because they are not about the file."""


class Runner(Protocol):
    """Answers requests, as `florence2.AsyncClient` does over a server or an engine in this process."""

    async def run(self, image: bytes, request: v1.TaskRequest, **options: Unpack[CallOptions]) -> Answer:
        """Answer a request about an image file."""


class OptionsError(Florence2Error, ValueError):
    """The server rejects an option of the run, which is the same for every image."""


@dataclass(frozen=True)
class Exchange:
    """Sends images.

    Attributes:
        runner: answers the requests.
        tasks: about each image.
        options: the adapter and the generation options of each request.
        call: keywords of each call: `timeout`, `priority`.
        outage: tracks how long no server has answered.
        filters: which items of the results are kept.
        pictures: where to draw the results; None to draw nothing.
    """

    runner: Runner
    tasks: Sequence[BulkTask]
    options: TaskOptions
    call: CallOptions
    outage: Outage
    filters: Mapping[str, Any]
    pictures: PictureFolder | None = None

    async def record(self, item: Item, position: int) -> Record:
        """Process an image, and return its record.

        Raises:
            GaveUpError: no server has answered for too long.
            OptionsError: the server rejects an option of all requests.
        """
        line = None  # without the picture, there still are the results
        try:
            request = bulk_request(self.tasks, item.inputs, self.options)
            image = await _read(item)
            answer = self._kept(await self._answer(image, request))
            line = result_line(item, self.tasks, answer)
            if self.pictures is not None:
                await asyncio.to_thread(self.pictures.draw, item.id, image, self.tasks, answer)
        except (GaveUpError, OptionsError):
            raise
        # Whatever an image or its inputs cause, e.g. in the libraries that read its file: it would end each run again.
        except Exception as error:  # noqa: BLE001 - named in the list of failed images
            return Record(item.id, position, line, error_line(item, error))
        failure = failed_task(self.tasks, answer)
        error_text = None if failure is None else error_line(item, *failure)
        return Record(item.id, position, line, error_text)

    def _kept(self, answer: Answer) -> Answer:
        try:
            return kept(answer, self.filters)
        except InvalidArgumentError as error:  # e.g. of a server that sends no scores
            raise OptionsError(str(error)) from error

    async def _answer(self, image: bytes, request: v1.TaskRequest) -> Answer:
        faults = attempt = 0
        while True:
            attempt += 1
            answer = None
            try:
                answer = await self.runner.run(image, request, **self.call)
                for step in answer.steps:
                    if isinstance(step.outcome, Florence2Error) and _is_transient(step.outcome):
                        raise step.outcome
            except Florence2Error as error:
                if not await self._is_outage(error):
                    faults += 1
                    if faults >= _ATTEMPTS or not _is_transient(error):
                        self.outage.end()
                        if answer is not None:  # the error of a task; others may have results
                            return answer
                        raise
                await self.outage.wait(error, attempt)
            else:
                self.outage.end()
                return answer

    async def _is_outage(self, error: Florence2Error) -> bool:
        """Whether an error says nothing about the image, because no server could answer."""
        if isinstance(error, AccessDeniedError | ModelNotFoundError) and not self.outage.has_answered:
            raise GaveUpError(str(error)) from error
        if isinstance(error, InvalidArgumentError) and (error.field or "").startswith(("adapter", "generation.")):
            raise OptionsError(str(error)) from error
        if isinstance(error, DeadlineExceededError):
            return not await self._is_ready()
        return isinstance(error, UnavailableError | AccessDeniedError | ModelNotFoundError)

    async def _is_ready(self) -> bool:
        is_ready = getattr(self.runner, "is_ready", None)
        try:
            return is_ready is None or bool(await is_ready())
        except AccessDeniedError:  # to the readiness check, perhaps not to requests
            return True


def _is_transient(error: Florence2Error) -> bool:
    """Whether the same request may succeed later."""
    kinds = (UnavailableError, DeadlineExceededError, RequestCancelledError, ServerError)
    return isinstance(error, kinds)


async def _read(item: Item) -> bytes:
    if isinstance(item.content, bytes):
        return item.read()
    for attempt in range(1, _READS + 1):
        try:
            return await asyncio.to_thread(item.read)
        except _LASTING_READ_ERRORS:
            raise
        except Exception as error:  # each storage has errors of its own
            is_lasting = item.content.is_local and getattr(error, "errno", None) not in _PASSING
            if is_lasting or attempt == _READS:
                raise OSError(f"{type(error).__name__}: {error}") from error
        await asyncio.sleep(5 * backoff_seconds(attempt))
    raise AssertionError("the last attempt returns or raises")
