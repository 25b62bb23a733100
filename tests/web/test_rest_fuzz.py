"""Requests that schemathesis makes from the API's own description, valid and invalid, to the real server."""

import base64

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.failures import Failure

pytestmark = pytest.mark.web

load_all_checks()
SECONDS = 60
EXAMPLES = 12
# What the description cannot say: which fields exclude each other, what is inside the image, what the server has.
RULES = (
    "None, because",
    "the image",
    "at most",
    "x_min",
    "one of the",
    "a task or a prompt",
)


class RefusedValidData(Failure):
    """Valid data was refused, and not by a rule that the description cannot express."""


@pytest.fixture
def description(door_url):
    return schemathesis.openapi.from_url(f"{door_url}/openapi.json", timeout=SECONDS)


schema = schemathesis.pytest.from_fixture("description")


@schema.parametrize()
@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate]
)
def test_every_response_conforms_to_the_description(case, scene):
    answerable(case, scene)
    case.call_and_validate(timeout=SECONDS)


def answerable(case, scene) -> None:
    """Put a real image into a valid request: a schema cannot say what an image is."""
    if case.meta is None or not case.meta.generation.mode.is_positive or not isinstance(case.body, dict):
        return
    is_form = case.media_type == "multipart/form-data"
    case.body["image"] = scene if is_form else base64.b64encode(scene).decode()
