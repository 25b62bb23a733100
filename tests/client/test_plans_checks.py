"""`florence2.plans.check_plan`: what is rejected before anything runs."""

import pytest
from florence2 import v1
from florence2.errors import InvalidArgumentError
from florence2.plans import PlanLimits, check_plan, is_single_step, plan_name


def task_list(*tasks, **fields):
    return v1.TaskRequest(task_list=v1.TaskList(tasks=tasks), **fields)


def test_a_plan_is_named_after_its_task():
    for name in ("caption", "caption_grounding", "region_analysis", "free_prompt"):
        assert plan_name(v1.TaskRequest(**{name: {}})) == name
    assert plan_name(task_list()) == "task_list"
    assert plan_name(v1.TaskRequest(prompt="<OD>")) == "object_detection"
    assert plan_name(v1.TaskRequest(prompt="hello")) == "free_prompt"
    assert is_single_step(v1.TaskRequest(prompt="hello"))
    assert not is_single_step(task_list())


BLANK = {"caption": " "}
REJECTED = [
    (v1.TaskRequest(), "task"),
    (task_list(), "task_list.tasks"),
    (task_list(*[v1.TaskRequest(caption={})] * 4), "task_list.tasks"),
    (task_list(*[v1.TaskRequest(caption_grounding={})] * 3), "task_list"),
    (task_list(v1.TaskRequest(caption={}), v1.TaskRequest()), "task_list.tasks[1].task"),
    (task_list(task_list(v1.TaskRequest(caption={}))), "task_list.tasks[0].task_list"),
    (task_list(v1.TaskRequest(caption={}, priority=1)), "task_list.tasks[0].priority"),
    (task_list(v1.TaskRequest(caption={}, timeout_seconds=float("nan"))), "task_list.tasks[0].timeout_seconds"),
    (task_list(v1.TaskRequest(caption={}), generation={"num_beams": 99}), "generation.num_beams"),
    (
        task_list(v1.TaskRequest(caption={}), v1.TaskRequest(ocr={}, generation={"num_beams": 99})),
        "task_list.tasks[1].generation.num_beams",
    ),
    (
        task_list(v1.TaskRequest(caption={}, generation={"min_new_tokens": 9}), generation={"max_new_tokens": 5}),
        "task_list.tasks[0].generation.min_new_tokens",
    ),
    (task_list(v1.TaskRequest(phrase_grounding=BLANK)), "task_list.tasks[0].phrase_grounding.caption"),
    (
        task_list(v1.TaskRequest(caption={}), v1.TaskRequest(region_analysis={"phrase_grounding": BLANK})),
        "task_list.tasks[1].region_analysis.phrase_grounding.caption",
    ),
    (task_list(v1.TaskRequest(caption_grounding={}, prompt="a")), "task_list.tasks[0].prompt"),
    (task_list(v1.TaskRequest(caption={}), priority=4), "priority"),
    (task_list(v1.TaskRequest(caption={}), timeout_seconds=-1), "timeout_seconds"),
    (task_list(v1.TaskRequest(caption={}), adapter="a b"), "adapter"),
    (task_list(v1.TaskRequest(caption={}, adapter="a b"), adapter="a"), "task_list.tasks[0].adapter"),
    (v1.TaskRequest(caption={}, adapter="a b"), "adapter"),
    (v1.TaskRequest(caption_grounding={}, adapter="a b"), "adapter"),
    (v1.TaskRequest(region_analysis={}, adapter="a b"), "adapter"),
    (v1.TaskRequest(caption_grounding={"detail": 9}), "caption_grounding.detail"),
    (v1.TaskRequest(caption_grounding={}, prompt="a"), "prompt"),
    (v1.TaskRequest(caption_grounding={}, generation={"num_beams": 99}), "generation.num_beams"),
    (v1.TaskRequest(region_analysis={"region_task": 9}), "region_analysis.region_task"),
    (v1.TaskRequest(region_analysis={"max_regions": -1}), "region_analysis.max_regions"),
    (v1.TaskRequest(region_analysis={"phrase_grounding": BLANK}), "region_analysis.phrase_grounding.caption"),
    (
        v1.TaskRequest(region_analysis={"open_vocabulary_detection": {"queries": ["a", " "]}}),
        "region_analysis.open_vocabulary_detection.queries[1]",
    ),
]


@pytest.mark.parametrize(("request_", "field"), REJECTED, ids=lambda value: value if isinstance(value, str) else "")
def test_a_wrong_field_is_named_by_its_full_path(request_, field):
    with pytest.raises(InvalidArgumentError) as error:
        check_plan(request_, PlanLimits(tasks=3, steps=5))
    assert error.value.field == field
    assert str(error.value).startswith(f"{field}: got ")


def test_limits_that_are_not_known_are_not_checked():
    many = task_list(*[v1.TaskRequest(caption={})] * 500)
    check_plan(many)
    with pytest.raises(InvalidArgumentError, match=r"got '500 requests', expected at most 16 \(max_tasks\)"):
        check_plan(many, PlanLimits())


def test_only_a_request_is_checked():
    with pytest.raises(TypeError, match="request: got 3"):
        check_plan(3)
