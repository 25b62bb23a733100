"""Many images at once: what `Client.map` and `AsyncClient.map` share."""

import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeAlias, TypeVar

from florence2 import v1
from florence2._arguments import check_integer, check_priority, check_request_id, check_timeout, refuse_unknown
from florence2.client import typed_plans
from florence2.client.answers import Answer, TruncatedAnswerError
from florence2.client.filters import Filters
from florence2.errors import Florence2Error, InvalidArgumentError, wrong_type
from florence2.images import ImageSource, encode_image
from florence2.options import RunOptions, TaskOptions, set_options
from florence2.plan_results import PlanResult
from florence2.plans import check_plan
from florence2.results import Result
from florence2.tasks import TASKS

ImageT = TypeVar("ImageT", bound=ImageSource)

MapTask: TypeAlias = v1.TaskRequest | str | Callable[[ImageT], v1.TaskRequest]
"""What `map` does with each image: a request, the name of a task, or a function that returns an image's request."""

_FIRST_LIMIT: Final = 4
_ORDERED_WINDOW: Final = 3
_UNORDERED_WINDOW: Final = 2


@dataclass(frozen=True)
class MapOutcome(Generic[ImageT]):
    """The outcome of the request about one of many images: an answer or an error."""

    index: int
    """The image's position among those given, from 0."""
    image: ImageT = field(repr=False, compare=False)
    """The image as given."""
    answer: Answer | None = None
    """The answer, truncated or not, as `run` returns it; None if there is an error."""
    error: Florence2Error | OSError | None = None
    """The error of the image or the request; None if there is an answer."""

    @property
    def result(self) -> Result | PlanResult:
        """The result of a complete answer.

        Raises:
            TruncatedAnswerError: the answer is truncated; see `answer`.
            Florence2Error, OSError: the error, if there is no answer.
        """
        if self.error is not None:
            raise self.error
        assert self.answer is not None, "there is an answer or an error"
        if self.answer.is_truncated:
            raise TruncatedAnswerError(self.answer)
        return self.answer.result


class MapRequests(Generic[ImageT]):
    """The requests of a call of `map`.

    Args:
        task: see `MapTask`.
        options: the keywords of `map`; the adapter and the generation options override those of the requests.

    Raises:
        TypeError, InvalidArgumentError: the task, or an option, is invalid.
    """

    def __init__(self, task: MapTask[ImageT], options: TaskOptions) -> None:
        refuse_unknown(options, TaskOptions.__optional_keys__)
        check_timeout(options.get("timeout"))
        check_priority(options.get("priority"))
        check_request_id(options.get("request_id"))
        self._options = options
        self._filters = Filters.of_options(options)
        self._make: Callable[[ImageT], v1.TaskRequest] | None = None
        if isinstance(task, v1.TaskRequest | str):
            self._request = self._complete(task if isinstance(task, v1.TaskRequest) else _request_named(task))
            check_plan(self._request)
            self._filters.check(self._request)
        elif callable(task):
            self._make = task
            self._complete(v1.TaskRequest())  # checks the options
        else:
            raise wrong_type(
                "task", task, "a TaskRequest, the name of a task, or a function that returns a TaskRequest"
            )

    def of(self, image: ImageT) -> v1.TaskRequest:
        """A new request for an image; what the function for it raises is the caller's own error."""
        if self._make is None:
            return self._complete(self._request)
        made = self._make(image)
        if not isinstance(made, v1.TaskRequest):
            raise wrong_type("task", made, "a function that returns a TaskRequest")
        return self._complete(made)

    def call_options(self, index: int) -> RunOptions:
        """The options of the call about the image at `index`. Its request id ends with the index."""
        filters = self._filters
        call = RunOptions(min_score=filters.min_score, max_items=filters.max_items, labels=filters.labels)
        if "timeout" in self._options:
            call["timeout"] = self._options["timeout"]
        if "priority" in self._options:
            call["priority"] = self._options["priority"]
        if (request_id := self._options.get("request_id")) is not None:
            call["request_id"] = f"{request_id}-{index}"
        return call

    def _complete(self, request: v1.TaskRequest) -> v1.TaskRequest:
        copy = v1.TaskRequest()
        copy.CopyFrom(request)
        set_options(copy, self._options)
        return copy


def _request_named(name: str) -> v1.TaskRequest:
    """The request of a method of the clients, or of an official token, that needs nothing but an image."""
    if name == "ground_caption":
        return typed_plans.ground_caption("brief")
    if name == "analyze_regions":
        return typed_plans.analyze_regions("description", None, None, None, None)
    found = [task for task in TASKS if task.input is None and name in (task.client_method, task.token)]
    if found:
        request = v1.TaskRequest()
        getattr(request, found[0].name).SetInParent()
        return request
    names = sorted({task.client_method for task in TASKS if task.input is None} | {"ground_caption", "analyze_regions"})
    raise InvalidArgumentError.of_field(
        "task", name, f"{', '.join(names)}, a token such as <OD>, or, for tasks with an input, a TaskRequest"
    )


class AdaptiveLimit:
    """The maximum number of requests in flight, adapted to the servers' load as TCP adapts to a congested network.

    It starts at 4 and grows by one with each answer, so that it doubles with each round-trip, up to the maximum (slow
    start). When the servers refuse a request because they are full, it is halved, and from then on grows by one after
    each `value` answers: additive increase, multiplicative decrease (RFC 5681). Refusals of attempts that began before
    the last decrease belong to the same overload and are ignored. Thread-safe.

    Args:
        most: the maximum, at least 1.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(min(_FIRST_LIMIT, most))
        self._is_starting = True
        self._lowered = -math.inf
        self._lock = threading.Lock()

    @property
    def value(self) -> int:
        """The limit, from 1 to the maximum."""
        return int(self._limit)

    def on_answer(self) -> None:
        """Grow: a request was answered."""
        with self._lock:
            growth = 1.0 if self._is_starting else 1.0 / self._limit
            self._limit = min(float(self._most), self._limit + growth)

    def on_refusal(self, started: float) -> None:
        """Shrink: an attempt that began at `started`, on `time.monotonic`'s clock, was refused."""
        with self._lock:
            if started < self._lowered:
                return
            self._is_starting = False
            self._limit = max(1.0, self._limit / 2)
            self._lowered = time.monotonic()


class InOrder(Generic[ImageT]):
    """Puts outcomes in order, if they are to be ordered: each is held until all before it have arrived."""

    def __init__(self, *, is_ordered: bool) -> None:
        self._is_ordered = is_ordered
        self._held: dict[int, MapOutcome[ImageT]] = {}
        self._next = 0

    def add(self, outcome: MapOutcome[ImageT]) -> list[MapOutcome[ImageT]]:
        """The outcomes to yield after another one has arrived."""
        if not self._is_ordered:
            return [outcome]
        self._held[outcome.index] = outcome
        due = []
        while self._next in self._held:
            due.append(self._held.pop(self._next))
            self._next += 1
        return due


def window(concurrency: int, *, ordered: bool) -> int:
    """The number of images that are held at once: waiting, in flight, or answered and not yet yielded."""
    return concurrency * (_ORDERED_WINDOW if ordered else _UNORDERED_WINDOW)


def check_concurrency(concurrency: object) -> int:
    """Check the maximum number of requests in flight.

    Raises:
        TypeError: it is not an integer.
        InvalidArgumentError: it is below 1.
    """
    if check_integer("concurrency", concurrency) < 1:
        raise InvalidArgumentError.of_field("concurrency", concurrency, "at least 1")
    return check_integer("concurrency", concurrency)


def check_images(images: Iterable[ImageT]) -> Iterable[ImageT]:
    """Check that `images` is an iterable of images. A path is iterable, too: its characters would be taken for paths.

    Raises:
        TypeError: it is a single image, or not iterable.
    """
    if isinstance(images, str | bytes | bytearray | memoryview) or not isinstance(images, Iterable):
        raise wrong_type("images", images, "an iterable of images")
    return images


def encode_one(image: ImageSource) -> bytes:
    """Encode one of many images. All errors are of types that a `MapOutcome` can have.

    Raises:
        OSError: the file cannot be read.
        InvalidArgumentError: anything else.
    """
    try:
        return encode_image(image)
    except (Florence2Error, OSError):
        raise
    except Exception as error:  # a wrong type, or whatever a lazily loaded PIL image raises
        raise InvalidArgumentError(f"image: {error}") from error
