"""Load of streams, each of which is compared with the unary answer."""

import threading
from concurrent.futures import ThreadPoolExecutor

from florence2.v1 import StreamEvent, TaskRequest, TaskResponse

from tests.server.streams import by_step, items_of, items_of_response, streaming, text_of, without_scores


class StreamCallers:
    """A closed loop: threads that read one stream after another to its end.

    Args:
        server: the server.
        image: what the requests are about.
        requests: each caller goes through them in an order of its own.
        answers: their unary answers.
        callers: the number of threads.

    Attributes:
        started: how many streams were started.
        complete: how many of them ended with a response.
        wrong: what is wrong with a stream, one line each.
    """

    def __init__(
        self, server, image: bytes, requests: list[TaskRequest], answers: list[TaskResponse], callers: int
    ) -> None:
        self._callers = callers
        self._server = server
        self._image = image
        self._pairs = list(zip(requests, answers, strict=True))
        self._stop = threading.Event()
        self._lock = threading.Lock()  # of what follows
        self._under_way: set[int] = set()
        self.started = self.complete = 0
        self.wrong: list[str] = []

    def __enter__(self) -> "StreamCallers":
        self._pool = ThreadPoolExecutor(self._callers)
        self._runs = [self._pool.submit(self._run, number) for number in range(self._callers)]
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._pool.shutdown()

    @property
    def under_way(self) -> int:
        """How many streams have had an event, and not the last one."""
        with self._lock:
            return len(self._under_way)

    def raise_errors(self) -> None:
        """Raise what a thread raised."""
        for run in self._runs:
            run.result()

    def _run(self, caller: int) -> None:
        number = caller
        while not self._stop.is_set():
            request, answer = self._pairs[number % len(self._pairs)]
            number += self._callers + 1
            with self._lock:
                self.started += 1
            events = self._events(caller, request)
            with self._lock:
                self.complete += events[-1].HasField("response")
                self.wrong += [f"{request}: {fault}" for fault in faults_of(events, answer)]

    def _events(self, caller: int, request: TaskRequest) -> list[StreamEvent]:
        events = []
        with streaming(self._server, self._image, request) as stream:
            for event in stream.events():
                events.append(event)
                with self._lock:
                    self._under_way.add(caller)
        with self._lock:
            self._under_way.discard(caller)
        return events


def faults_of(events: list[StreamEvent], answer: TaskResponse) -> list[str]:
    """How the events of a stream differ from each other or from the unary answer; empty if they do not."""
    last = [each.WhichOneof("event") in ("response", "error") for each in events]
    if last != [*[False] * (len(events) - 1), True] or not events[-1].HasField("response"):
        return [f"the last events are {[each for each, is_last in zip(events, last, strict=True) if is_last]}"]
    response = events[-1].response
    faults = [] if without_scores(response) == without_scores(answer) else [f"{response} instead of {answer}"]
    if not response.steps:
        return faults + faults_of_step(events[:-1], response)
    for step, (started, *content, ended) in by_step(events).items():
        if (started.WhichOneof("event"), ended.WhichOneof("event")) != ("step_started", "step_response"):
            faults.append(f"step {step} begins with {started} and ends with {ended}")
        faults += faults_of_step(content, ended.step_response.response)
    return faults


def faults_of_step(events: list[StreamEvent], response: TaskResponse) -> list[str]:
    """How the pieces and items of a step differ from its response."""
    faults = []
    if text_of(events) != response.text:
        faults.append(f"the pieces are {text_of(events)!r}, the text is {response.text!r}")
    if items_of(events) != items_of_response(response):
        faults.append(f"the items are {items_of(events)}, the result has {items_of_response(response)}")
    return faults
