"""The order and the limits of the admission queue."""

import pytest
from florence2_server.config import AdmissionConfig
from florence2_server.settings import ConfigError
from florence2_server.stub.admission import IMAGE_COPIES, AdmissionQueue, RefusedError


def queue_of(slots: int = 1, **limits: int) -> AdmissionQueue:
    return AdmissionQueue(AdmissionConfig(**{"ahead": 0, **limits}), slots)


def admitted(queue: AdmissionQueue, name: str, generations: int = 1, priority: int = 2, image_bytes: int = 0):
    """Admit a request and queue its generations, named `name0`, `name1`, ..."""
    admission = queue.admit(image_bytes)
    for number in range(generations):
        queue.add(admission, priority, f"{name}{number}")
    return admission


def launched(queue: AdmissionQueue) -> list[str]:
    """Launch everything, one generation at a time."""
    order = []
    while (item := queue.launch()) is not None:
        order.append(item)
        queue.land()
    return order


def test_generations_leave_by_priority_then_by_arrival():
    queue = queue_of()
    for name, priority in (("low", 3), ("a", 2), ("high", 1), ("b", 2)):
        admitted(queue, name, priority=priority)
    assert launched(queue) == ["high0", "a0", "b0", "low0"]


def test_a_request_with_many_generations_alternates_with_those_that_arrive_after_it():
    queue = queue_of()
    admitted(queue, "page", generations=60)
    for name in ("a", "b", "c"):
        admitted(queue, name)
    assert launched(queue)[:8] == ["page0", "a0", "page1", "b0", "page2", "c0", "page3", "page4"]


def test_a_request_that_arrives_while_a_page_is_under_way_is_next():
    queue = queue_of()
    admitted(queue, "page", generations=60)
    for _ in range(20):
        queue.launch()
        queue.land()
    admitted(queue, "caption")
    assert launched(queue)[0] == "caption0"


def test_arrivals_without_end_do_not_hold_up_a_page():
    queue = queue_of()
    admitted(queue, "page", generations=5)
    order = []
    for number in range(30):
        admitted(queue, f"caption {number} ")
        order.append(queue.launch())
        queue.land()
    # One of two turns is the page's while it lasts, although captions keep arriving.
    assert [item for item in order[:10] if item.startswith("page")] == [f"page{number}" for number in range(5)]


def test_as_many_generations_are_at_the_engine_as_there_are_slots_and_some_ahead():
    queue = queue_of(slots=2, ahead=1)
    admitted(queue, "page", generations=5)
    assert [queue.launch() for _ in range(4)] == ["page0", "page1", "page2", None]
    queue.land()
    assert queue.launch() == "page3"
    assert queue.statistics.submitted == 3


def test_requests_over_the_limit_are_refused_and_those_at_the_engine_do_not_count():
    queue = queue_of(queue_requests=2)
    admitted(queue, "a")
    assert queue.launch() == "a0"
    admitted(queue, "b")
    admitted(queue, "c")
    with pytest.raises(RefusedError, match="queue_requests: got 3 waiting requests, expected at most 2") as refusal:
        queue.check_requests()
    assert refusal.value.reason == "requests"
    with pytest.raises(RefusedError):
        queue.admit(0)
    queue.land()
    assert queue.launch() == "b0"
    queue.admit(0)


def test_images_count_until_their_requests_are_answered():
    queue = queue_of(slots=2, queue_bytes=IMAGE_COPIES * 100)
    first = admitted(queue, "a", image_bytes=60)
    second = admitted(queue, "b", image_bytes=40)
    assert [queue.launch(), queue.launch()] == ["a0", "b0"]
    with pytest.raises(RefusedError, match=r"queue_bytes: got 202 bytes.*expected at most 200") as refusal:
        queue.admit(1)
    assert refusal.value.reason == "bytes"
    queue.release(second)
    queue.release(first)
    queue.release(first)
    assert (queue.statistics.memory, queue.statistics.requests) == (0, 0)


def test_the_only_request_is_never_too_large():
    queue = queue_of(queue_bytes=10)
    first = queue.admit(1000)
    with pytest.raises(RefusedError):
        queue.admit(1)
    queue.release(first)
    queue.admit(1000)


def test_the_generations_of_an_answered_request_leave_the_queue():
    queue = queue_of()
    gone = admitted(queue, "gone", generations=3)
    admitted(queue, "a")
    queue.release(gone)
    queue.add(gone, 1, "too late")
    assert launched(queue) == ["a0"]


def test_the_oldest_waiting_request_is_known():
    queue = queue_of()
    assert queue.statistics.oldest is None
    first, second = admitted(queue, "a", priority=3), admitted(queue, "b", priority=1)
    assert queue.statistics.oldest == first.since
    assert (queue.is_waiting(first), queue.is_waiting(second)) == (True, True)
    assert queue.launch() == "b0"
    assert (queue.statistics.requests, queue.is_waiting(second)) == (1, False)
    queue.land()
    queue.launch()
    assert queue.statistics.oldest is None


@pytest.mark.parametrize("name", ["queue_requests", "queue_bytes", "max_tasks", "max_steps"])
def test_each_limit_is_at_least_one(name):
    with pytest.raises(ConfigError, match=f"{name}: got 0, expected at least 1"):
        AdmissionConfig(**{name: 0})
