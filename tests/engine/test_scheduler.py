import pytest
from florence2_engine.images import Image
from florence2_engine.request import Request
from florence2_engine.scheduler import Departure, Move, Scheduler
from florence2_engine.search import start_search

from tests.engine.test_search import make_options


def request_of(beams: int = 1, image: Image | None = None) -> Request:
    return Request(image or Image((1, 1)), [0], start_search(make_options(num_beams=beams), [0]))


def scheduler_of(slots: int = 8, rows: int = 16, prefill_batch: int = 8, image_batch: int = 8) -> Scheduler:
    return Scheduler(slots, rows, prefill_batch, image_batch)


def test_the_oldest_requests_start_first_and_no_more_than_one_prefill_takes():
    scheduler = scheduler_of(prefill_batch=3)
    requests = [request_of() for _ in range(5)]
    for request in requests:
        scheduler.add(request)
    assert scheduler.next_prefill() == requests[:3]
    assert list(scheduler.waiting) == requests[3:]


def test_no_more_requests_start_than_there_are_slots():
    scheduler = scheduler_of(slots=2)
    requests = [request_of() for _ in range(3)]
    for request in requests:
        scheduler.add(request)
    scheduler.start(scheduler.next_prefill())
    assert scheduler.running == requests[:2]
    assert scheduler.next_prefill() == []


def test_beams_wait_for_rows_and_nobody_overtakes_them():
    scheduler = scheduler_of(rows=8)
    first, wide, narrow = request_of(5), request_of(4), request_of(1)
    for request in (first, wide, narrow):
        scheduler.add(request)
    assert scheduler.next_prefill() == [first]
    scheduler.start([first])
    assert scheduler.next_prefill() == []  # room for the narrow one, but the wide one came before
    scheduler.remove(0)
    assert scheduler.next_prefill() == [wide, narrow]


def test_a_prefill_encodes_a_limited_number_of_images():
    scheduler = scheduler_of(image_batch=1)
    new, seen = Image((1, 1)), Image((1, 1), embedding=object())
    requests = [request_of(image=image) for image in (seen, new, new, seen, Image((1, 1)), seen)]
    for request in requests:
        scheduler.add(request)
    assert scheduler.next_prefill() == requests[:4]


@pytest.mark.parametrize(
    ("slot", "departure", "left"),
    [(0, Departure(Move(2, 0), [(Move(2, 0), 2)]), [2, 1]), (2, Departure(None, []), [0, 1])],
)
def test_the_last_request_closes_a_gap(slot, departure, left):
    scheduler = scheduler_of()
    requests = [request_of() for _ in range(3)]
    scheduler.start(requests)
    moves = [(move, requests[index]) for move, index in departure.rows]
    assert scheduler.remove(slot) == Departure(departure.slot, moves)
    assert scheduler.running == [requests[index] for index in left]
    assert [request.rows for request in scheduler.running] == [[0], [1]]


def test_rows_of_beams_close_every_gap():
    scheduler = scheduler_of()
    requests = [request_of(beams) for beams in (2, 3, 1, 4)]
    scheduler.start(requests)
    departure = scheduler.remove(1)
    rows = [row for request in scheduler.running for row in request.rows]
    assert sorted(rows) == list(range(7))
    assert scheduler.rows == 7
    assert departure.slot == Move(3, 1)
    assert [(move.source, move.target) for move, _ in departure.rows] == [(9, 4), (8, 3), (7, 2)]
    assert requests[3].rows == [6, 2, 3, 4]


def test_a_scheduler_is_true_while_there_is_something_to_do():
    scheduler = scheduler_of()
    assert not scheduler
    scheduler.add(request_of())
    assert scheduler
    scheduler.start(scheduler.next_prefill())
    assert scheduler
    scheduler.remove(0)
    assert not scheduler
