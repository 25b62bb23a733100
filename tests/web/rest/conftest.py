"""A client of the real app whose answers come from a mock, for tests of the REST API."""

import pytest
from florence2 import v1

from tests.web.conftest import respond


@pytest.fixture
def sent():
    """The requests that reached the mock."""
    return []


@pytest.fixture
def client(app_client, sent):
    def record(image, request):
        copy = v1.TaskRequest()
        copy.CopyFrom(request)
        sent.append((image, copy))
        return respond(image, request)

    return app_client(handler=record)
