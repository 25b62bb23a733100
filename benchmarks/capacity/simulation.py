"""The engine's loop without the engine: who waits, who is encoded, who decodes, and what each turn costs."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Costs:
    """Seconds that the engine takes.

    Attributes:
        encode: for a picture and its prompt, during which nobody decodes.
        step: for a decode step, however many rows are in it.
        row: what each row adds to a step.
    """

    encode: float
    step: float
    row: float


@dataclass(frozen=True)
class SimulatedAnswer:
    """When a question was asked and answered, in seconds since the load began."""

    asked: float
    answered: float

    @property
    def latency(self) -> float:
        """Seconds from question to answer."""
        return self.answered - self.asked


def open_loop(costs: Costs, answer_tokens: Sequence[int], due: Sequence[float], slots: int) -> list[SimulatedAnswer]:
    """Arrivals that wait for nobody.

    Args:
        costs: of the engine.
        answer_tokens: the length of each question's answer, in the order of arrival.
        due: when each arrives, ascending.
        slots: questions that decode at once.
    """
    arrivals = deque(zip(due, answer_tokens, strict=True))
    return _run(costs, arrivals, slots, on_answer=lambda _: None)


def closed_loop(costs: Costs, answer_tokens: Sequence[int], callers: int, slots: int) -> list[SimulatedAnswer]:
    """Callers who ask the next question as soon as they have an answer."""
    questions = iter(answer_tokens)
    arrivals = deque((0.0, tokens) for _, tokens in zip(range(callers), questions, strict=False))

    def ask_on(now: float) -> None:
        if (tokens := next(questions, None)) is not None:
            arrivals.append((now, tokens))

    return _run(costs, arrivals, slots, ask_on)


def _run(
    costs: Costs, arrivals: "deque[tuple[float, int]]", slots: int, on_answer: Callable[[float], None]
) -> list[SimulatedAnswer]:
    now = 0.0
    running: list[tuple[float, int]] = []  # when it was asked, tokens that are left
    answers: list[SimulatedAnswer] = []
    while arrivals or running:
        if not running:
            now = max(now, arrivals[0][0])
        # One picture between two steps, as on CPU: answers under way keep flowing.
        if len(running) < slots and arrivals and arrivals[0][0] <= now:
            running.append(arrivals.popleft())
            now += costs.encode
        now += costs.step + costs.row * len(running)
        left = []
        for asked, tokens in running:
            if tokens > 1:
                left.append((asked, tokens - 1))
            else:
                answers.append(SimulatedAnswer(asked, now))
                on_answer(now)
        running = left
    return answers
