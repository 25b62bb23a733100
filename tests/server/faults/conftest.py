"""Servers, requests and their expected answers, for all fault tests."""

import pytest

from tests.reference import TASKS, png
from tests.server.conftest import server_starter
from training.demo.sampling import sample_scene
from training.demo.scenes import draw


@pytest.fixture(scope="module")
def start_server(tmp_path_factory):
    """Starts a server that lives until its module ends, so that no other module's tests run beside it."""
    with server_starter(tmp_path_factory) as start:
        yield start


@pytest.fixture(scope="module")
def server(start_server):
    """The server as the repository ships it, for all tests of a module."""
    return start_server()


@pytest.fixture(scope="session")
def cases(reference):
    """Every task about two scenes, with short answers."""
    scenes = [png(draw(sample_scene(seed))) for seed in (30, 31)]
    return [reference.case(scene, task, {"max_new_tokens": 24}) for scene in scenes for task in TASKS]


@pytest.fixture(scope="session")
def expected(reference, cases):
    """The text of each case's answer."""
    return [reference.text(case) for case in cases]
