"""Servers for the scenarios of operators."""

import pytest

from tests.deploy.conftest import render
from tests.server.conftest import server_starter

__all__ = ["render"]  # a fixture


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(__file__.rsplit("/", 1)[0]):
            item.add_marker(pytest.mark.operations)


@pytest.fixture(scope="module")
def start_server(tmp_path_factory):
    """Starts a server that lives until its module ends, so that no other module's tests run beside it."""
    with server_starter(tmp_path_factory) as start:
        yield start


@pytest.fixture(scope="module")
def server(start_server):
    """The server as the repository ships it, for all tests of a module."""
    return start_server()
