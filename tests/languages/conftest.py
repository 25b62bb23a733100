"""Programs in other languages, built and run in front of a real server."""

import pytest
from florence2 import Client

from tests.conftest import ROOT
from tests.server.conftest import server, start_server

__all__ = ["server", "start_server"]

BUILD = ROOT / "build" / "languages"


@pytest.fixture(scope="session")
def python_client(server):
    """The Python client, whose answers the others' are compared with."""
    with Client(server.grpc_url) as client:
        yield client
