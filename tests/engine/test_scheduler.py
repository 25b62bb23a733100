import pytest
from florence2_server.engine.generation import Generation
from florence2_server.engine.images.decoding import Image
from florence2_server.engine.scheduler import BatchLimits, Compaction, Move, Scheduler
from florence2_server.engine.searches import start_search

from tests.engine.test_search import make_options


def generation_of(beams: int = 1, image: Image | None = None) -> Generation:
    return Generation(image or Image((1, 1)), [0], start_search(make_options(num_beams=beams), [0]))


def scheduler_of(
    *generations: Generation, slots: int = 8, rows: int = 16, prefill_batch: int = 8, image_batch: int = 8
) -> Scheduler:
    """A scheduler in which these generations wait."""
    scheduler = Scheduler(BatchLimits(slots, rows, prefill_batch, image_batch))
    for generation in generations:
        scheduler.add(generation)
    return scheduler


def test_generations_start_in_order_up_to_the_prefill_batch():
    generations = [generation_of() for _ in range(5)]
    scheduler = scheduler_of(*generations, prefill_batch=3)
    assert scheduler.schedule() == generations[:3]
    assert (scheduler.waiting_count, scheduler.running_count) == (2, 3)
    assert scheduler.schedule() == generations[3:]


def test_a_prefill_has_consecutive_slots_and_a_row_for_each_beam():
    generations = [generation_of(beams) for beams in (2, 1, 3)]
    scheduler = scheduler_of(*generations)
    prefill = scheduler.schedule()
    assert [generation.slot for generation in prefill] == [0, 1, 2]
    assert [generation.rows for generation in prefill] == [[0, 1], [2], [3, 4, 5]]


def test_no_more_generations_start_than_there_are_slots():
    generations = [generation_of() for _ in range(3)]
    scheduler = scheduler_of(*generations, slots=2)
    assert scheduler.schedule() == generations[:2]
    assert scheduler.batch == generations[:2]
    assert scheduler.schedule() == []


def test_a_generation_that_waits_for_rows_is_not_overtaken():
    first, wide, narrow = generation_of(5), generation_of(4), generation_of(1)
    scheduler = scheduler_of(first, wide, narrow, rows=8)
    assert scheduler.schedule() == [first]
    assert scheduler.schedule() == []  # the narrow one would fit, but the wide one came first
    scheduler.remove([first])
    assert scheduler.schedule() == [wide, narrow]


def test_a_prefill_encodes_a_limited_number_of_images():
    new, seen = Image((1, 1)), Image((1, 1), embedding=object())
    generations = [generation_of(image=image) for image in (seen, new, new, seen, Image((1, 1)), seen)]
    scheduler = scheduler_of(*generations, image_batch=1)
    assert scheduler.schedule() == generations[:4]


def test_the_images_ahead_are_those_of_the_next_generations():
    images = [Image((1, 1)), Image((1, 1), embedding=object()), Image((1, 1), was_ahead=True), *[Image((1, 1))] * 2]
    running, waiting = generation_of(), [generation_of(image=image) for image in [images[0], *images]]
    scheduler = Scheduler(BatchLimits(slots=1, rows=1, prefill_batch=1, image_batch=2, encoded_ahead=5))
    for generation in (running, *waiting):
        scheduler.add(generation)
    assert scheduler.schedule() == [running]
    assert scheduler.images_ahead() == [images[0], images[3]]
    images[0].embedding = object()
    assert scheduler.images_ahead() == [images[3]]
    scheduler.add(generation_of())  # too far behind
    images[3].was_ahead = True
    assert scheduler.images_ahead() == []


@pytest.mark.parametrize(
    ("removed", "moves", "left"),
    [
        ([0], Compaction([Move(2, 0)], [(Move(2, 0), 2)]), [2, 1]),
        ([2], Compaction([], []), [0, 1]),
        ([0, 2], Compaction([Move(1, 0)], [(Move(1, 0), 1)]), [1]),
    ],
)
def test_the_last_generation_closes_a_gap(removed, moves, left):
    generations = [generation_of() for _ in range(3)]
    scheduler = scheduler_of(*generations)
    scheduler.schedule()
    compaction = scheduler.remove([generations[index] for index in removed])
    assert compaction == Compaction(moves.slots, [(move, generations[index]) for move, index in moves.rows])
    assert scheduler.batch == [generations[index] for index in left]
    assert [(generation.slot, generation.rows) for generation in scheduler.batch] == [
        (index, [index]) for index in range(len(left))
    ]


def test_rows_of_beams_close_every_gap():
    generations = [generation_of(beams) for beams in (2, 3, 1, 4)]
    scheduler = scheduler_of(*generations)
    scheduler.schedule()
    compaction = scheduler.remove([generations[1]])
    rows = [row for generation in scheduler.batch for row in generation.rows]
    assert sorted(rows) == list(range(7))
    assert compaction.slots == [Move(3, 1)]
    assert [(move.source, move.target) for move, _ in compaction.rows] == [(9, 4), (8, 3), (7, 2)]
    assert generations[3].rows == [6, 2, 3, 4]
    scheduler.add(next_one := generation_of())
    scheduler.schedule()
    assert next_one.rows == [7]


def test_cancelled_generations_are_removed_whether_they_wait_or_run():
    generations = [generation_of() for _ in range(4)]
    scheduler = scheduler_of(*generations, prefill_batch=2)
    scheduler.schedule()
    generations[0].future.cancel()
    generations[2].future.cancel()
    assert scheduler.remove_cancelled().slots == [Move(1, 0)]
    assert scheduler.batch == [generations[1]]
    assert scheduler.schedule() == [generations[3]]


def test_a_cleared_scheduler_returns_what_waited_and_what_ran():
    generations = [generation_of() for _ in range(3)]
    scheduler = scheduler_of(*generations, prefill_batch=2)
    scheduler.schedule()
    assert set(scheduler.clear()) == set(generations)
    assert not scheduler


def test_a_scheduler_is_true_while_there_is_something_to_do():
    scheduler = scheduler_of()
    assert not scheduler
    scheduler.add(generation := generation_of())
    assert scheduler
    scheduler.schedule()
    assert scheduler
    scheduler.remove([generation])
    assert not scheduler
