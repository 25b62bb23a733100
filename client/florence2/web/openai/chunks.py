"""The server-sent events of a chat completion's stream."""

from collections.abc import AsyncGenerator, Iterator
from typing import Any, Final

from sse_starlette import ServerSentEvent

from florence2.client.answers import Answer
from florence2.client.events import AsyncEventStream, Event, Finished, TextDelta
from florence2.plain_data import json_text
from florence2.tasks import task_of
from florence2.web.failures import logged_error
from florence2.web.openai.chat_request import ChatRequest
from florence2.web.openai.completions import Completion, content_of
from florence2.web.openai.errors import error_body
from florence2.web.openai.growing_text import GrowingText
from florence2.web.problems import problem_of

_LINE_END: Final = "\n"
_DONE: Final = ServerSentEvent("[DONE]", sep=_LINE_END)


class Chunks:
    """Makes the events of one stream.

    Args:
        chat: the request.
        completion: what the chunks have in common.
        facts: what the access log says about the request; an error is added.
    """

    def __init__(self, chat: ChatRequest, completion: Completion, facts: dict[str, Any]) -> None:
        self._chat = chat
        self._completion = completion
        self._facts = facts

    async def of_answer(self, answer: Answer) -> AsyncGenerator[ServerSentEvent, None]:
        """The events of an answer that is complete."""
        yield self._delta({"role": "assistant", "content": ""})
        for event in self._end(content_of(answer), answer):
            yield event

    async def of_text(self, first: Event, events: AsyncEventStream) -> AsyncGenerator[ServerSentEvent, None]:
        """The events of a text, while it is generated.

        An error is the last event: the response's status, which is 200, has been sent by then.

        Args:
            first: the first event of the answer.
            events: those after it; closed at the end.
        """
        text = GrowingText(task_of(self._chat.request))
        async with events:
            yield self._delta({"role": "assistant", "content": ""})
            for chunk in self._of_event(text, first):
                yield chunk
            try:
                async for event in events:
                    for chunk in self._of_event(text, event):
                        yield chunk
            except Exception as error:  # noqa: BLE001 - the caller gets it; an unexpected one is logged
                self._facts["error"] = logged_error(error)
                problem = problem_of(self._chat.names.renamed(error), self._completion.request_id)
                yield _event(error_body(problem))

    def _of_event(self, text: GrowingText, event: Event) -> Iterator[ServerSentEvent]:
        match event:
            case TextDelta():
                if piece := text.feed(event.text):
                    yield self._delta({"content": piece})
            case Finished(answer=answer):
                yield from self._end(text.finish(content_of(answer)), answer)

    def _end(self, content: str, answer: Answer) -> Iterator[ServerSentEvent]:
        """The rest of the content, and the events after it."""
        if content:
            yield self._delta({"content": content})
        yield _event(self._completion.chunk({}, answer.finish_reason))
        if self._chat.includes_usage:
            yield _event(self._completion.usage_chunk(answer.usage))
        yield _DONE

    def _delta(self, delta: dict[str, Any]) -> ServerSentEvent:
        return _event(self._completion.chunk(delta))


def _event(chunk: dict[str, Any]) -> ServerSentEvent:
    return ServerSentEvent(json_text(chunk), sep=_LINE_END)
