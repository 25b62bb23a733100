from florence2_server.supervision.pending_generation import GenerationQueue, PendingGeneration
from florence2_server.v1.engine_pb2 import GenerateRequest


def queue_of(count: int) -> tuple[GenerationQueue, list[PendingGeneration]]:
    queue, generations = GenerationQueue(), [PendingGeneration(GenerateRequest(), str) for _ in range(count)]
    for generation in generations:
        queue.add(generation)
    return queue, generations


def launched(queue: GenerationQueue) -> list[PendingGeneration]:
    """All that may be in flight at once."""
    found = []
    while (generation := queue.launch()) is not None:
        found.append(generation)
    return found


def crash(queue: GenerationQueue, in_flight: list[PendingGeneration]) -> None:
    for generation in reversed(in_flight):
        queue.land(generation)
        queue.requeue(generation)


def test_generations_are_launched_in_the_order_of_arrival_also_after_a_crash():
    queue, generations = queue_of(3)
    assert launched(queue) == generations
    crash(queue, generations)
    assert not queue.is_any_in_flight
    queue.add(late := PendingGeneration(GenerateRequest(), str))
    assert launched(queue) == [*generations, late]


def test_a_suspect_is_in_flight_alone():
    queue, (first, second, third) = queue_of(3)
    for _ in range(2):
        in_flight = [queue.launch(), queue.launch()]
        assert in_flight == [first, second]
        crash(queue, in_flight)
    for alone in (first, second, third):
        assert launched(queue) == [alone]
        queue.land(alone)
    assert launched(queue) == []


def test_a_cancelled_generation_is_not_launched():
    queue, (cancelled, kept) = queue_of(2)
    cancelled.cancel()
    assert launched(queue) == [kept]


def test_clearing_returns_those_that_wait():
    queue, (in_flight, waiting) = queue_of(2)
    assert queue.launch() is in_flight
    assert queue.clear() == [waiting]
    assert queue.is_any_in_flight
    assert launched(queue) == []


def test_cancelled_generations_do_not_pile_up_while_there_is_no_engine():
    queue = GenerationQueue()
    for _ in range(5):
        queue.add(cancelled := PendingGeneration(GenerateRequest(), str))
        cancelled.cancel()
    queue.add(last := PendingGeneration(GenerateRequest(), str))
    assert queue.clear() == [last]
