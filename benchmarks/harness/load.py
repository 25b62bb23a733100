"""Load on a server: callers that ask one question after another, or arrivals that wait for nobody."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from benchmarks.callers import Caller, Reply
from benchmarks.questions import Question


@dataclass(frozen=True)
class Outcome:
    """A question that was answered.

    Attributes:
        asked: seconds since the load began; of an arrival, when it was due.
        answered: seconds since the load began.
    """

    question: Question
    reply: Reply
    asked: float
    answered: float

    @property
    def latency(self) -> float:
        """Seconds from question to answer."""
        return self.answered - self.asked


def closed_loop(
    caller: Caller, questions: Sequence[Question], callers: int, num_beams: int, on_answer: Callable[[], None]
) -> list[Outcome]:
    """Ask every question once: each of `callers` asks the next one of the queue as soon as it has its answer.

    Returns:
        In the order of the answers.
    """
    queue = iter(questions)
    outcomes: list[Outcome] = []
    lock = threading.Lock()
    begin = time.perf_counter()

    def ask_on() -> None:
        while True:
            with lock:
                question = next(queue, None)
            if question is None:
                return
            asked = time.perf_counter() - begin
            reply = caller.ask(question, num_beams)
            answered = time.perf_counter() - begin
            with lock:
                outcomes.append(Outcome(question, reply, asked, answered))
            on_answer()

    with ThreadPoolExecutor(callers) as pool:
        for worker in [pool.submit(ask_on) for _ in range(callers)]:
            worker.result()
    return sorted(outcomes, key=lambda outcome: outcome.answered)


def open_loop(
    caller: Caller, questions: Sequence[Question], due: Sequence[float], num_beams: int, on_answer: Callable[[], None]
) -> list[Outcome]:
    """Ask each question when it is due, however many are unanswered by then.

    Args:
        caller: asks the server.
        questions: in the order of their arrival.
        due: seconds after the beginning, one for each question.
        num_beams: of every search.
        on_answer: called at each answer.

    Returns:
        In the order of the answers.
    """
    begin = time.perf_counter()

    def ask(question: Question, asked: float) -> Outcome:
        reply = caller.ask(question, num_beams)
        on_answer()
        return Outcome(question, reply, asked, time.perf_counter() - begin)

    with ThreadPoolExecutor(len(questions)) as pool:
        pending = []
        for question, asked in zip(questions, due, strict=True):
            time.sleep(max(0.0, begin + asked - time.perf_counter()))
            pending.append(pool.submit(ask, question, asked))
        return sorted((one.result() for one in pending), key=lambda outcome: outcome.answered)


def poisson_schedule(rate: float, count: int, seed: int) -> list[float]:
    """Seconds at which `count` arrivals are due, independent of each other, `rate` a second on average."""
    generator = random.Random(seed)  # noqa: S311 - seeded on purpose
    due, now = [], 0.0
    for _ in range(count):
        now += generator.expovariate(rate)
        due.append(now)
    return due
