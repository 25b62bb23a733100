"""The simulated engine, with costs that are easy to add up."""

import pytest

from benchmarks.capacity import Check, capacity, checks, fit, replicas
from benchmarks.lengths import ANSWER_LENGTHS
from benchmarks.measurement import percentile
from benchmarks.questions import mixed_subjects
from benchmarks.simulation import Costs, closed_loop, open_loop

COSTS = Costs(encode=1.0, step=0.1, row=0.01)


def test_a_question_alone_takes_its_encoding_and_its_steps():
    (answer,) = open_loop(COSTS, [5], [2.0], slots=4)
    assert answer.asked == 2.0
    assert answer.latency == pytest.approx(1.0 + 5 * 0.11)


def test_questions_share_steps_and_one_is_encoded_between_two_of_them():
    short, long = sorted(open_loop(COSTS, [3, 2], [0.0, 0.0], slots=4), key=lambda answer: answer.answered)
    # encode, step of one; encode, step of two, step of two
    assert [short.answered, long.answered] == pytest.approx([1.0 + 0.11 + 1.0 + 0.12 + 0.12] * 2)


def test_without_a_slot_a_question_waits():
    first, second = open_loop(COSTS, [2, 1], [0.0, 0.0], slots=1)
    assert first.latency == pytest.approx(1.22)
    assert second.latency == pytest.approx(1.22 + 1.11)


def test_callers_ask_on():
    answers = closed_loop(COSTS, [1, 1, 1, 1], callers=2, slots=2)
    assert [answer.asked for answer in answers][:1] == [0.0]
    assert len(answers) == 4
    assert answers[-1].asked > 0


def test_costs_are_found_again_from_what_they_make():
    costs = Costs(encode=0.3, step=0.04, row=0.006)
    loads = []
    for callers, questions in ((1, 7), (4, 14), (16, 48)):
        tokens = [length for subject in mixed_subjects(questions, seed=1) for _, length in subject.lengths]
        answers = closed_loop(costs, tokens, callers, slots=16)
        latencies = [answer.latency for answer in answers]
        figures = {
            "encode": costs.encode,
            "token": costs.step + costs.row,
            "throughput": questions / answers[-1].answered,
            **{f"latency_p{percent}": percentile(latencies, percent) for percent in (50, 95)},
        }
        loads.append({"name": str(callers), "callers": callers, "questions": questions, "rounds": [figures]})
    found = fit(loads, seed=1)
    assert all(check.ratio == pytest.approx(1, rel=0.02) for check in checks(loads, found, seed=1))
    assert (found.encode, found.step, found.row) == pytest.approx((0.3, 0.04, 0.006), rel=0.05)


def test_capacity_is_what_a_full_batch_answers():
    costs = Costs(encode=0.0, step=0.16, row=0.01)
    tokens = (ANSWER_LENGTHS["caption"].shortest + ANSWER_LENGTHS["caption"].longest) / 2
    assert capacity(costs, ["caption"]) == pytest.approx(1 / (tokens * 0.02))


def test_a_fleet_has_room_for_bursts_and_one_replica_more():
    assert replicas(7.0, of_one=1.0) == 11
    assert Check("a load", "p95", measured=2.0, simulated=3.0).ratio == 1.5
