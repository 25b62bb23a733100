"""The simulated engine, with costs that are easy to add up, and what is derived from it."""

import pytest

from benchmarks.capacity.fleet_sizing import Check, capacity, checks, fit, replicas
from benchmarks.capacity.simulation import Costs, closed_loop, open_loop
from benchmarks.harness.lengths import ANSWER_LENGTHS
from benchmarks.harness.requests import mixed_groups
from benchmarks.harness.spread import percentile

COSTS = Costs(encode=1.0, step=0.1, row=0.01)


def test_a_request_alone_takes_its_encoding_and_its_steps():
    (answer,) = open_loop(COSTS, [5], [2.0], slots=4)
    assert answer.start == 2.0
    assert answer.latency == pytest.approx(1.0 + 5 * 0.11)


def test_requests_share_steps_and_one_is_encoded_between_two_steps():
    short, long = sorted(open_loop(COSTS, [3, 2], [0.0, 0.0], slots=4), key=lambda answer: answer.end)
    # encode, step of one; encode, step of two, step of two
    assert [short.end, long.end] == pytest.approx([1.0 + 0.11 + 1.0 + 0.12 + 0.12] * 2)


def test_a_request_waits_for_a_free_slot():
    first, second = open_loop(COSTS, [2, 1], [0.0, 0.0], slots=1)
    assert first.latency == pytest.approx(1.22)
    assert second.latency == pytest.approx(1.22 + 1.11)


def test_callers_send_the_next_request_after_a_response():
    answers = closed_loop(COSTS, [1, 1, 1, 1], callers=2, slots=2)
    assert [answer.start for answer in answers][:1] == [0.0]
    assert len(answers) == 4
    assert answers[-1].start > 0


def test_fitting_recovers_the_costs_behind_simulated_measurements():
    costs = Costs(encode=0.3, step=0.04, row=0.006)
    loads = []
    for callers, requests in ((1, 7), (4, 14), (16, 48)):
        tokens = [length for group in mixed_groups(requests, seed=1) for _, length in group.lengths]
        answers = closed_loop(costs, tokens, callers, slots=16)
        latencies = [answer.latency for answer in answers]
        figures = {
            "encode": costs.encode,
            "token": costs.step + costs.row,
            "throughput": requests / answers[-1].end,
            **{f"latency_p{percent}": percentile(latencies, percent) for percent in (50, 95)},
        }
        loads.append({"name": str(callers), "callers": callers, "requests": requests, "rounds": [figures]})
    found = fit(loads, seed=1)
    assert all(check.ratio == pytest.approx(1, rel=0.02) for check in checks(loads, found, seed=1))
    assert (found.encode, found.step, found.row) == pytest.approx((0.3, 0.04, 0.006), rel=0.05)


def test_capacity_is_the_throughput_of_a_full_batch():
    costs = Costs(encode=0.0, step=0.16, row=0.01)
    tokens = (ANSWER_LENGTHS["caption"].shortest + ANSWER_LENGTHS["caption"].longest) / 2
    assert capacity(costs, ["caption"]) == pytest.approx(1 / (tokens * 0.02))


def test_a_fleet_has_headroom_for_bursts_and_a_spare_replica():
    assert replicas(7.0, capacity_of_one=1.0) == 11
    assert Check("a load", "p95", measured=2.0, simulated=3.0).ratio == 1.5
