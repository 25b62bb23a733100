"""Requests that schemathesis makes from the API's own description, valid and invalid, to the real server."""

import base64

import pytest

pytest.importorskip("schemathesis", reason="make test-web installs it")

import schemathesis
from florence2.web.rest.openapi import Limits, description
from hypothesis import Phase, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

pytestmark = pytest.mark.web

SECONDS = 60
EXAMPLES = 6
FORM = "multipart/form-data"
# A valid request may need more time than there is.
SHORT = {"max_new_tokens": 4, "num_beams": 1}

DESCRIPTION = description(Limits(("florence2",), timeout=SECONDS))
every_path = schemathesis.openapi.from_dict(DESCRIPTION)
every_path.config.phases.coverage.enabled = False
every_path.config.phases.examples.enabled = False  # test_description.py sends them
# Hundreds of requests, each just beyond a limit of one field: the options are the same for all paths.
two_paths = schemathesis.openapi.from_dict(DESCRIPTION).include(path=["/v1/describe-region", "/v1/run"])
two_paths.config.generation.update(modes=[GenerationMode.NEGATIVE])
few = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate]
)


@every_path.parametrize()
@few
def test_every_response_conforms_to_the_description(case, door_url, scene):
    check(case, door_url, scene)


@two_paths.parametrize()
@few
def test_what_is_just_beyond_a_described_limit_is_refused(case, door_url, scene):
    check(case, door_url, scene)


def check(case, door_url, scene) -> None:
    """Send a case, and check the response by all of schemathesis's checks."""
    if is_valid(case):
        make_answerable(case, scene)
    # What a valid `request` is depends on more than its schema can say.
    excluded = [positive_data_acceptance] if case.path == "/v1/run" else []
    case.call_and_validate(base_url=door_url, timeout=2 * SECONDS, excluded_checks=excluded)


def is_valid(case) -> bool:
    """Whether a case conforms to the description. Those of the lists have no body."""
    return case.meta is not None and case.meta.generation.mode.is_positive and isinstance(case.body, dict)


def make_answerable(case, scene) -> None:
    """Make a valid request one that this server can answer."""
    is_form = case.media_type == FORM
    body = case.body
    body["image"] = scene if is_form else base64.b64encode(scene).decode()
    if case.path != "/v1/run":
        body.update(SHORT)
    elif isinstance(body.get("request"), dict):
        body["request"]["generation"] = SHORT
    if "region" in body:
        body["region"] = "10,20,1.1e2,300" if is_form else [10, 20, 110.5, 3e2]
    # What the server has, the time it needs, and fields that exclude each other.
    exclusive = ["caption", "query"] if case.path == "/v1/analyze-regions" else []
    for name in ("adapter", "timeout", "min_new_tokens", *exclusive):
        body.pop(name, None)
