"""Results of several runs in one file."""

import json

import pytest

from benchmarks.comparison.results import Results
from benchmarks.harness.mismatches import Mismatch


def closed(callers, throughput):
    figures = {"ours": {"throughput": throughput}, "conventional": {"throughput": 1.0}}
    return {"name": f"{callers} callers", "kind": "closed", "callers": callers, "rounds": [figures]}


@pytest.fixture
def run(tmp_path):
    """Starts a run; all runs share one file."""
    return lambda add: Results(tmp_path / "full.json", "full", rounds=1, seed=1, dtype="float32", add=add)


@pytest.fixture
def written(tmp_path):
    return lambda: json.loads((tmp_path / "full.json").read_text())


def names(report, workload):
    return [load["name"] for load in report["workloads"][workload]["loads"]]


def test_a_workload_is_written_as_soon_as_it_is_measured(run, written):
    run(add=False).add("mixed", {"loads": [closed(16, 5.0)]}, [])
    assert names(written(), "mixed") == ["16 callers"]
    (target,) = [each for each in written()["targets"] if each["target"] == "mixed, 16 callers: throughput"]
    assert target["measured"]["median"] == 5.0


def test_adding_keeps_other_loads_and_replaces_those_measured_again(run, written):
    run(add=False).add("mixed", {"loads": [closed(16, 5.0), closed(64, 6.0)]}, [])
    run(add=True).add("mixed", {"loads": [closed(4, 2.0), closed(16, 7.0)]}, [])
    report = written()
    assert names(report, "mixed") == ["4 callers", "16 callers", "64 callers"]
    assert [load["run"] for load in report["workloads"]["mixed"]["loads"]] == [1, 1, 0]
    assert report["workloads"]["mixed"]["loads"][1]["rounds"][0]["ours"]["throughput"] == 7.0


def test_a_run_that_does_not_add_starts_from_scratch(run, written):
    run(add=False).add("beams", {"loads": [closed(16, 5.0)]}, [])
    run(add=False).add("mixed", {"loads": [closed(16, 5.0)]}, [])
    assert list(written()["workloads"]) == ["mixed"]


def test_wrong_answers_are_kept_with_their_run(run, written):
    wrong = Mismatch("mixed, 16 callers", "mixed-1", "right", "wrong")
    run(add=False).add("mixed", {"loads": [closed(16, 5.0)]}, [wrong])
    assert written()["runs"][0]["mismatches"] == [vars(wrong)]


def test_in_half_precision_different_answers_are_only_counted(tmp_path, written):
    different = Mismatch("mixed, 16 callers", "mixed-1", "one", "another")
    results = Results(tmp_path / "full.json", "full", rounds=1, seed=1, dtype="bfloat16", add=False)
    results.add("mixed", {"loads": [closed(16, 5.0)]}, [different, different])
    (run,) = written()["runs"]
    assert (run["different_answers"], run["mismatches"]) == (2, [])
