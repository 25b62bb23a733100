import pytest

from benchmarks.comparison.single_caller import SEARCHES
from benchmarks.comparison.targets import TARGETS, verdicts
from benchmarks.comparison.workloads import FULL
from benchmarks.kernels import adapters


def rounds(ours, theirs, figure, against="conventional"):
    return [{"ours": {figure: one}, against: {figure: other}} for one, other in zip(ours, theirs, strict=True)]


def result(load, measured):
    return {"loads": [{"name": load, "rounds": measured}]}


def verdict(workloads, target):
    return next(each for each in verdicts(workloads) if each["target"] == target)


def test_every_target_names_a_load_that_the_full_plan_measures():
    loads = {(workload.name, load.name) for workload in FULL.served for load in workload.loads}
    loads |= {("single", search) for search in SEARCHES}
    loads |= {("overhead", "one token"), ("encoding", "image"), ("decode step", "one row"), ("loading", "base")}
    loads |= {("adapters", load) for load in adapters.LOADS}
    assert {(target.workload, target.load) for target in TARGETS} <= loads


def test_a_target_is_judged_by_the_median_of_ratios():
    workloads = {"mixed": result("16 callers", rounds([3.0, 8.0, 4.0], [1.0, 2.0, 1.0], "throughput"))}
    found = verdict(workloads, "mixed, 16 callers: throughput")
    assert found["measured"] == {"median": 4.0, "least": 3.0, "greatest": 4.0}
    assert found["met"] is True


def test_less_is_better_if_the_bound_is_a_maximum():
    slow = [{"ours": {"latency_mean": 1.8, "decode_mean": 0.9}, "bare": {"latency_mean": 2.0, "decode_mean": 1.0}}]
    workloads = {"single": result("greedy", slow)}
    assert verdict(workloads, "single, greedy: decoding")["met"] is False
    assert verdict(workloads, "single, greedy: latency")["met"] is True


def test_overhead_is_judged_in_seconds():
    found = verdict(
        {"overhead": result("one token", rounds([0.004], [0.001], "latency_p50", "empty"))}, TARGETS[-1].what
    )
    assert found["measured"]["median"] == pytest.approx(0.004)
    assert found["met"] is True


def test_what_was_not_measured_is_neither_met_nor_missed():
    assert {each["met"] for each in verdicts({})} == {None}
