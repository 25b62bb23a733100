import pytest

from benchmarks.measurement import SERVED_AT_ONCE
from benchmarks.workloads import FULL, QUICK, ClosedLoad


@pytest.mark.parametrize("plan", [FULL, QUICK], ids=["full", "quick"])
def test_every_closed_load_leaves_a_steady_window(plan):
    for workload in plan.served:
        for load in workload.closed:
            assert load.questions > 2 * min(load.callers, SERVED_AT_ONCE)


def test_the_full_plan_has_the_loads_and_rounds_that_were_asked_for():
    mixed = next(workload for workload in FULL.served if workload.name == "mixed")
    assert [load.callers for load in mixed.closed] == [1, 4, 16, 64]
    assert [load.percent for load in mixed.open] == [50, 80, 120]
    assert FULL.rounds >= 3


def test_beams_differ_from_mixed_in_their_beams_alone():
    mixed, beams = (next(each for each in FULL.served if each.name == name) for name in ("mixed", "beams"))
    assert (beams.checkpoint, beams.subjects, beams.num_beams) == (mixed.checkpoint, mixed.subjects, 3)
    assert ClosedLoad(16, 1).name in {load.name for load in beams.closed}


def test_an_album_has_whole_pictures():
    album = next(workload for workload in FULL.served if workload.name == "album")
    assert all(load.questions % album.questions_per_subject == 0 for load in album.loads)
