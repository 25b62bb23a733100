"""Requests that schemathesis makes from the API's own description, valid and invalid, to the real server."""

import base64

import pytest
import schemathesis
from florence2.web.rest.openapi import Limits, description
from hypothesis import Phase, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

pytestmark = pytest.mark.web

SECONDS = 60
EXAMPLES = 6
FORM = "multipart/form-data"
# What the description cannot say: what the server has, how much time it needs, and limits that depend on other fields.
REPLACED = {"timeout": SECONDS, "min_new_tokens": 0, "max_new_tokens": 4}

schema = schemathesis.openapi.from_dict(description(Limits(("florence2",), timeout=SECONDS)))


@schema.parametrize()
@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate]
)
def test_every_response_conforms_to_the_description(case, door_url, scene):
    if is_valid(case):
        make_answerable(case, scene)
    # What a valid `request` is depends on more than its schema can say.
    excluded = [positive_data_acceptance] if case.path == "/v1/run" else []
    case.call_and_validate(base_url=door_url, timeout=SECONDS, excluded_checks=excluded)


def is_valid(case) -> bool:
    """Whether a case conforms to the description. Those of the lists have no body."""
    return case.meta is not None and case.meta.generation.mode.is_positive and isinstance(case.body, dict)


def make_answerable(case, scene) -> None:
    """Make a valid request one that this server can answer."""
    is_form = case.media_type == FORM
    body = case.body
    body["image"] = scene if is_form else base64.b64encode(scene).decode()
    body.update({name: value for name, value in REPLACED.items() if body.get(name) is not None})
    if "region" in body:
        body["region"] = "10,20,1.1e2,300" if is_form else [10, 20, 110.5, 3e2]
    if isinstance(body.get("request"), dict):
        body["request"]["generation"] = {"max_new_tokens": 4}
    unanswerable = ["adapter", *(["caption", "query"] if case.path == "/v1/analyze-regions" else [])]
    for name in unanswerable:
        body.pop(name, None)
