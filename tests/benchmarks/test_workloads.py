import pytest

from benchmarks.comparison.workloads import FULL, QUICK, ClosedLoad
from benchmarks.harness.servers import SERVED_AT_ONCE


@pytest.mark.parametrize("plan", [FULL, QUICK], ids=["full", "quick"])
def test_every_closed_load_leaves_a_steady_window(plan):
    for workload in plan.served:
        for load in workload.closed:
            assert load.requests > 2 * min(load.callers, SERVED_AT_ONCE)


def test_the_full_plan_has_the_published_loads_and_rounds():
    mixed = next(workload for workload in FULL.served if workload.name == "mixed")
    assert [load.callers for load in mixed.closed] == [1, 4, 16, 64]
    assert [load.percent for load in mixed.open] == [50, 80, 120]
    assert FULL.rounds >= 3


def test_beams_differs_from_mixed_only_in_its_beams():
    mixed, beams = (next(each for each in FULL.served if each.name == name) for name in ("mixed", "beams"))
    assert (beams.checkpoint, beams.groups, beams.num_beams) == (mixed.checkpoint, mixed.groups, 3)
    assert ClosedLoad(16, 1).name in {load.name for load in beams.closed}


def test_album_loads_contain_whole_albums():
    album = next(workload for workload in FULL.served if workload.name == "album")
    assert all(load.requests % album.requests_per_group == 0 for load in album.loads)
