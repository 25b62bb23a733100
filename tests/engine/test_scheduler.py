import subprocess
import sys

import pytest
from florence2_engine.scheduler import RowMove, Scheduler


def test_the_oldest_requests_start_first_and_no_more_than_one_prefill_takes():
    scheduler = Scheduler(slots=8, prefill_batch=3)
    for name in "abcde":
        scheduler.add(name)
    assert scheduler.next_prefill() == ["a", "b", "c"]
    assert list(scheduler.waiting) == ["d", "e"]


def test_no_more_requests_start_than_there_are_slots():
    scheduler = Scheduler(slots=2, prefill_batch=4)
    for name in "abc":
        scheduler.add(name)
    scheduler.start(scheduler.next_prefill())
    assert scheduler.running == ["a", "b"]
    assert scheduler.next_prefill() == []


@pytest.mark.parametrize(
    ("row", "move", "left"),
    [(0, RowMove(source=2, target=0), ["c", "b"]), (2, None, ["a", "b"])],
)
def test_the_last_row_closes_a_gap(row, move, left):
    scheduler = Scheduler(slots=3, prefill_batch=3)
    scheduler.start(["a", "b", "c"])
    assert scheduler.remove(row) == move
    assert scheduler.running == left


def test_a_scheduler_is_true_while_there_is_something_to_do():
    scheduler = Scheduler(slots=1, prefill_batch=1)
    assert not scheduler
    scheduler.add("a")
    assert scheduler
    scheduler.start(scheduler.next_prefill())
    assert scheduler
    scheduler.remove(0)
    assert not scheduler


def test_scheduler_and_request_import_no_torch():
    code = "import florence2_engine.scheduler, florence2_engine.request, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0
