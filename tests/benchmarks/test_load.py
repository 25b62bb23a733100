import threading
import time

import pytest

from benchmarks.callers import Reply
from benchmarks.load import closed_loop, open_loop, poisson_schedule
from benchmarks.questions import mixed_subjects


class Clerk:
    """Answers after a while, and knows how many asked at once."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._inside = 0
        self.most_inside = 0

    def ask(self, question, num_beams):
        with self._lock:
            self._inside += 1
            self.most_inside = max(self.most_inside, self._inside)
        time.sleep(self._seconds)
        with self._lock:
            self._inside -= 1
        return Reply(f"{question.name} {num_beams}")

    def close(self):
        """Nothing is open."""


class Broken(Clerk):
    def ask(self, question, num_beams):
        raise ConnectionError(f"{question.name}, {num_beams} beams")


@pytest.fixture(scope="module")
def questions():
    return [subject.questions(0)[0] for subject in mixed_subjects(8, 1)]


def test_a_closed_loop_asks_everything_once_with_as_many_as_are_allowed(questions):
    clerk, answered = Clerk(0.01), []
    outcomes = closed_loop(clerk, questions, 3, 2, lambda: answered.append(1))
    assert sorted(outcome.question.name for outcome in outcomes) == sorted(question.name for question in questions)
    assert clerk.most_inside == 3
    assert len(answered) == 8
    assert all(outcome.reply.text.endswith(" 2") for outcome in outcomes)
    assert [outcome.answered for outcome in outcomes] == sorted(outcome.answered for outcome in outcomes)


def test_a_callers_failure_is_not_swallowed(questions):
    with pytest.raises(ConnectionError):
        closed_loop(Broken(), questions, 2, 1, lambda: None)


def test_an_open_loop_waits_for_nobody(questions):
    clerk = Clerk(0.5)
    outcomes = open_loop(clerk, questions, [0.0] * 8, 1, lambda: None)
    assert clerk.most_inside == 8
    assert len(outcomes) == 8


def test_latency_counts_from_when_an_arrival_was_due(questions):
    outcomes = open_loop(Clerk(0.02), questions[:2], [0.0, 0.05], 1, lambda: None)
    assert [outcome.asked for outcome in outcomes] == [0.0, 0.05]
    assert all(0.02 <= outcome.latency < 0.5 for outcome in outcomes)


def test_poisson_arrivals_have_their_rate_and_spread():
    due = poisson_schedule(rate=4.0, count=4000, seed=1)
    gaps = [late - early for early, late in zip([0.0, *due], due, strict=False)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(1 / 4, rel=0.05)
    assert deviation == pytest.approx(mean, rel=0.1)  # as an exponential distribution's
    assert due == poisson_schedule(4.0, 4000, 1) != poisson_schedule(4.0, 4000, 2)
