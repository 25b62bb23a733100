"""Whether a request was answered as its callers may expect: the service-level objectives, request by request."""

import grpc

from florence2_server.config import ObjectiveConfig
from florence2_server.stub.outcomes import UNKNOWN_TASK, Outcome

SHORT, LONG, PLAN = "short", "long", "plan"
GOOD, SLOW, FAILED = "good", "slow", "failed"
TASK_CLASSES = (SHORT, LONG, PLAN, UNKNOWN_TASK)
VERDICTS = (GOOD, SLOW, FAILED)

# Tasks whose answer is a phrase or two. Those about pages, many objects or polygons are long, as are free prompts.
_SHORT_TASKS = {"caption", "detailed_caption", "region_to_category", "region_to_description", "region_to_ocr"}
_PLANS = {"caption_grounding", "region_analysis", "task_list"}
_FAILURES = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL}
_CALLERS_OWN = {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
# A caller's clock starts before the stub's: a timeout that equals the objective arrives here a little shorter.
_TOLERANCE = 0.9


def task_class(task: str) -> str:
    """The class of a task, whose requests share a latency objective."""
    if task == UNKNOWN_TASK:
        return UNKNOWN_TASK
    if task in _PLANS:
        return PLAN
    return SHORT if task in _SHORT_TASKS else LONG


def objective_seconds(config: ObjectiveConfig, class_: str) -> float:
    """The latency objective of a task class. A request of unknown task has that of long ones."""
    seconds = {SHORT: config.objective_short_seconds, PLAN: config.objective_plan_seconds}
    return seconds.get(class_, config.objective_long_seconds)


def verdict(outcome: Outcome, objective: float) -> str | None:
    """How an outcome counts; None if it does not.

    Callers' mistakes do not count. A deadline that passed, and a caller who left, count as failures if the caller had
    waited for the objective.

    Args:
        outcome: how the request ended.
        objective: the latency objective of its class, in seconds.
    """
    if outcome.status is grpc.StatusCode.OK:
        return GOOD if outcome.seconds <= objective else SLOW
    if outcome.status in _FAILURES:
        return FAILED
    has_waited = outcome.status in _CALLERS_OWN and outcome.seconds >= _TOLERANCE * objective
    return FAILED if has_waited else None
