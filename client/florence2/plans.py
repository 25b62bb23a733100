"""Answers a request in steps: what to generate for it, and how the completions become its response.

A task is a plan of one step. A cascade has several: later ones follow from the responses to earlier ones. A task list
is one plan for each of its requests, side by side. Plans know neither servers nor models: whoever runs one generates
the steps that it hands out, in any order and at the same time, and hands in the outcome of each.

    run = PlanRun(request)
    steps = run.start()
    while steps:
        step = steps.pop()
        steps += run.complete(step.number, generate(step.request))
    run.result      # a TaskResponse, or a TaskError
"""

import threading
from collections.abc import Sequence
from typing import NamedTuple

from florence2 import v1
from florence2.cascades import PlannedStep, plan_of
from florence2.plan_checks import DEFAULT_LIMITS, PlanLimits, check_plan
from florence2.plan_requests import (
    TASK_LIST,
    certain_steps,
    fields_of_task,
    is_single_step,
    listed_requests,
    plan_name,
)
from florence2.step_outcomes import Outcome, joined, located, step_response, with_result

__all__ = [
    "DEFAULT_LIMITS",
    "Outcome",
    "PlanLimits",
    "PlanRun",
    "Step",
    "check_plan",
    "is_single_step",
    "plan_name",
    "with_result",
]


class Step(NamedTuple):
    """One generation that a plan needs.

    Attributes:
        number: identifies the step within its plan; steps are numbered from 0 in the order in which they start.
        request: a task or a prompt, with its adapter and its generation options; it must not be changed.
        item: of a step about a region, the index of its detection; else None.
    """

    number: int
    request: v1.TaskRequest
    item: int | None = None


class PlanRun:
    """One request on its way to its response. Thread-safe.

    The steps of a request are limited: those that it takes for certain always run; the rest is divided equally among
    the region analyses of a task list, so that a request's result does not depend on which step ends first.

    Args:
        request: a request that `check_plan` has accepted with these limits. It must not be changed.
        limits: how many steps may be started; each further one fails with RESOURCE_EXHAUSTED.

    Attributes:
        result: the response or the error; None until the last step is complete.
    """

    def __init__(self, request: v1.TaskRequest, limits: PlanLimits = DEFAULT_LIMITS) -> None:
        self.result: Outcome | None = None
        self._lock = threading.Lock()
        self._is_claimed = False
        self._started = 0
        self._under_way: dict[int, tuple[_Branch, int]] = {}
        self._tasks = list(request.task_list.tasks)
        self._is_list = request.WhichOneof("task") == TASK_LIST
        self._branches = (
            _listed_branches(request, limits) if self._is_list else [_Branch(request, limits.steps, limits.steps)]
        )
        self._unfinished = len(self._branches)

    def start(self) -> list[Step]:
        """The first steps, at least one."""
        with self._lock:
            return [step for branch in self._branches for step in self._advance(branch)]

    def complete(self, number: int, outcome: Outcome) -> list[Step]:
        """Hand in the outcome of a step, once for each step.

        Args:
            number: the step's.
            outcome: its response or its error. If the response has no result, it is decoded here and set. The caller
                must not change the outcome afterward.

        Returns:
            The steps that may start now. Once none is left to start or to complete, `result` is set.
        """
        with self._lock:
            branch, position = self._under_way.pop(number)
        outcome = with_result(branch.steps[position].request, outcome)  # takes a while for a long text
        with self._lock:
            return self._advance(branch) if branch.complete(position, outcome) else []

    def claim_result(self) -> Outcome | None:
        """The result, once: None before it is set, and None for every caller but the first.

        Of several threads that complete the last steps, each may then see `result`; this lets one of them answer.
        """
        with self._lock:
            if self.result is None or self._is_claimed:
                return None
            self._is_claimed = True
            return self.result

    def _advance(self, branch: "_Branch") -> list[Step]:
        branch.go_on()
        if branch.result is None:
            return [self._start(branch, position) for position in branch.startable]
        self._unfinished -= 1
        if self._unfinished == 0:
            self._conclude()
        return []

    def _start(self, branch: "_Branch", position: int) -> Step:
        number, planned = self._started, branch.steps[position]
        self._under_way[number] = branch, position
        self._started += 1
        return Step(number, planned.request, planned.item)

    def _conclude(self) -> None:
        if self._is_list:
            listed = enumerate(zip(self._branches, self._tasks, strict=True))
            self.result = joined([branch.listed_response(index, task) for index, (branch, task) in listed])
        else:
            self.result = self._branches[0].result


class _Branch:
    """A plan under way: one of those that run side by side for a request.

    Args:
        request: a task, a prompt or a cascade.
        max_steps: how many steps may be started.
        shared_steps: how many may be started for the whole request.

    Attributes:
        result: how it ended; None while it has not.
        steps: those that may run at the same time now.
        startable: the positions of those that can run.
    """

    def __init__(self, request: v1.TaskRequest, max_steps: int, shared_steps: int) -> None:
        self.result: Outcome | None = None
        self.steps: Sequence[PlannedStep] = ()
        self.startable: list[int] = []
        self._request = request
        self._max_steps = max_steps
        self._shared_steps = shared_steps
        self._planned = 0
        self._started = 0
        self._outcomes: list[Outcome | None] = []  # of `steps`; None: not complete yet
        self._missing = 0
        self._plan = plan_of(request)
        self._wait_for(next(self._plan))

    def go_on(self) -> None:
        """Hand the outcomes of the steps to the plan, until it waits for steps that can run, or has ended."""
        while self.result is None and not self._missing:
            try:
                self._wait_for(self._plan.send([outcome for outcome in self._outcomes if outcome is not None]))
            except StopIteration as end:
                self.result = end.value

    def complete(self, position: int, outcome: Outcome) -> bool:
        """Record how a step ended. Returns whether it was the last one of `steps`."""
        self._outcomes[position] = outcome
        self._missing -= 1
        return not self._missing

    def listed_response(self, index: int, task: v1.TaskRequest) -> v1.StepResponse:
        """The part of a task list's response, of which this is `task`, the request at `index`."""
        assert self.result is not None, "the plan has ended"
        outcome = self.result
        if isinstance(outcome, v1.TaskError):
            outcome = located(outcome, f"task_list.tasks[{index}]", fields_of_task(task))
        return step_response(self._request, outcome)

    def _wait_for(self, steps: Sequence[PlannedStep]) -> None:
        """Wait for the steps that can run; the others have failed."""
        self.steps, self.startable, self._outcomes = steps, [], []
        self._planned += len(steps)
        for position, step in enumerate(steps):
            error = step.error or self._excess()
            self._outcomes.append(error)
            if error is None:
                self.startable.append(position)
                self._started += 1
        self._missing = len(self.startable)

    def _excess(self) -> v1.TaskError | None:
        if self._started < self._max_steps:
            return None
        share = "" if self._max_steps == self._shared_steps else f", its share of {self._shared_steps}"
        message = f"steps: got {self._planned}, expected at most {self._max_steps}{share} (max_steps)"
        return v1.TaskError(status="RESOURCE_EXHAUSTED", message=message)


def _listed_branches(request: v1.TaskRequest, limits: PlanLimits) -> list[_Branch]:
    """The plans for the requests of a task list, which share its steps."""
    requests = listed_requests(request)
    analyses = sum(each.WhichOneof("task") == "region_analysis" for each in requests)
    spare = max(0, limits.steps - sum(map(certain_steps, requests)))
    share = spare // analyses if analyses else 0
    return [_Branch(each, certain_steps(each) + share, limits.steps) for each in requests]
