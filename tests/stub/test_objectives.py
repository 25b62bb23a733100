"""Which requests count for the objectives, and how."""

import grpc
import pytest
from florence2.tasks import TASKS
from florence2_server.config import ObjectiveConfig
from florence2_server.settings import ConfigError, config_of
from florence2_server.stub.objectives import objective_seconds, task_class, verdict
from florence2_server.stub.outcomes import Outcome

Status = grpc.StatusCode


@pytest.mark.parametrize(
    ("status", "seconds", "counted"),
    [
        (Status.OK, 1.9, "good"),
        (Status.OK, 2.0, "good"),
        (Status.OK, 2.1, "slow"),
        (Status.UNAVAILABLE, 0.001, "failed"),
        (Status.INTERNAL, 0.5, "failed"),
        (Status.DEADLINE_EXCEEDED, 1.5, None),
        (Status.DEADLINE_EXCEEDED, 1.99, "failed"),  # a timeout of 2 s, some of which passed on the way
        (Status.DEADLINE_EXCEEDED, 60, "failed"),
        (Status.CANCELLED, 1.5, None),
        (Status.CANCELLED, 2.5, "failed"),
        (Status.INVALID_ARGUMENT, 5, None),
    ],
)
def test_callers_who_had_waited_for_the_objective_were_not_served(status, seconds, counted):
    assert verdict(Outcome("caption", status, seconds), objective=2.0) == counted


def test_every_task_has_a_class():
    classes = {task.name: task_class(task.name) for task in TASKS}
    short = {"caption", "detailed_caption", "region_to_category", "region_to_description", "region_to_ocr"}
    assert {name for name, class_ in classes.items() if class_ == "short"} == short
    assert set(classes.values()) == {"short", "long"}
    assert [task_class(name) for name in ("region_analysis", "task_list", "caption_grounding")] == ["plan"] * 3
    assert (task_class("free_prompt"), task_class("unknown")) == ("long", "unknown")


def test_each_class_has_its_own_objective():
    config = config_of(ObjectiveConfig, {"objective_short_seconds": "0.5"})
    assert [objective_seconds(config, class_) for class_ in ("short", "long", "plan")] == [0.5, 10, 30]


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon"])
def test_an_objective_is_a_positive_number(value):
    with pytest.raises(ConfigError, match=r"objective_long_seconds: got .*, expected a"):
        config_of(ObjectiveConfig, {"objective_long_seconds": value})
