"""Requests to the REST API, and checks of their responses."""

import base64
import json

from tests.web.conftest import picture

TEXT_IMAGE = base64.b64encode(picture()).decode()
DOG = "dog<loc_100><loc_200><loc_300><loc_400>"


def form(client, name, data=None, **files):
    return client.post(f"/v1/{name}", data=data or {}, files=files or {"image": ("a.png", picture(), "image/png")})


def refused(response, status=400) -> dict:
    """The problem of a response."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["detail"]
    return problem


def events_of(response) -> list[tuple[str, dict]]:
    """The names and data of server-sent events."""
    assert response.headers["content-type"].startswith("text/event-stream")
    blocks = [block.splitlines() for block in response.text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]
