"""Events of a stream: what happens while a request is answered.

    for event in client.stream("page.png", v1.TaskRequest(ocr_with_region={})):
        match event:
            case ItemFound(item=item):
                print(item.label)
            case Finished(answer=answer):
                print(answer.finish_reason)

`TextDelta.text` of one step, joined, is exactly the generated text. The last event is `Finished`; a request that fails
raises its error instead.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeAlias

from florence2 import v1
from florence2.client.answers import Answer, StepAnswer
from florence2.results import Detection, TextRegion


@dataclass(frozen=True)
class StepStarted:
    """A step of a cascade, or a request of a task list, started. There is no such event for a single task."""

    step: int
    """The number of the step, in the order in which steps start, from 0."""
    request: v1.TaskRequest
    """What is requested."""
    item: int | None = None
    """Of a step about a region, the index of its detection; else None."""


@dataclass(frozen=True)
class TextDelta:
    """The next piece of generated text."""

    step: int
    """The number of the step; 0 for a single task."""
    text: str
    """The piece, including special tokens. With several beams, pieces are held back until all beams agree on them."""


@dataclass(frozen=True, eq=False)
class ItemFound:
    """The next detection or text region, complete with label and scores."""

    step: int
    """The number of the step; 0 for a single task."""
    item: Detection | TextRegion
    """As in the step's result. In pixels of the image as displayed."""


@dataclass(frozen=True)
class StepFinished:
    """A step of a cascade, or a request of a task list, ended. There is no such event for a single task."""

    step: int
    """The number of the step."""
    answer: StepAnswer
    """The step's answer or error."""


@dataclass(frozen=True)
class Finished:
    """The complete answer; the last event."""

    answer: Answer
    """As `run` returns it."""


Event: TypeAlias = StepStarted | TextDelta | ItemFound | StepFinished | Finished


class EventStream(Iterator[Event]):
    """The events of one request, blocking. Nothing is sent before the first one is requested.

    Leaving it before `Finished` cancels the request, also on the server. A `with` block does so at its end.
    """

    def __init__(self, events: Generator[Event, None, None]) -> None:
        self._events = events

    def __next__(self) -> Event:
        return next(self._events)

    def close(self) -> None:
        """Cancel the request, unless it is finished. May be called again."""
        self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncEventStream(AsyncIterator[Event]):
    """The events of one request, for asyncio. Nothing is sent before the first one is requested.

    Leaving it before `Finished` cancels the request, also on the server. An `async with` block does so at its end;
    without one, the event loop does so soon after the last reference is gone.
    """

    def __init__(self, events: AsyncGenerator[Event, None]) -> None:
        self._events = events

    async def __anext__(self) -> Event:
        return await anext(self._events)

    async def close(self) -> None:
        """Cancel the request, unless it is finished. May be called again."""
        await self._events.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
