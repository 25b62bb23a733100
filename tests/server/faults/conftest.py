"""What all faults are shown with."""

import pytest

from tests.reference import TASKS, png
from tests.server.conftest import server_starter
from training.sampling import sample_scene
from training.scenes import draw


@pytest.fixture(scope="module")
def start_server(tmp_path_factory):
    """Starts a server that lives until its module is over, so that none is measured beside the others'."""
    with server_starter(tmp_path_factory) as start:
        yield start


@pytest.fixture(scope="module")
def server(start_server):
    """The server as the repository ships it, for all tests of a module."""
    return start_server()


@pytest.fixture(scope="session")
def questions(reference):
    """Every task about two scenes, short answers."""
    scenes = [png(draw(sample_scene(seed))) for seed in (30, 31)]
    return [reference.question(scene, task, {"max_new_tokens": 24}) for scene in scenes for task in TASKS]


@pytest.fixture(scope="session")
def expected(reference, questions):
    return [reference.text(question) for question in questions]
