"""Several models in one server, and several engines of one model."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as triton
from florence2 import Client, Finished, TextDelta
from florence2.errors import UnavailableError
from florence2.v1 import TaskRequest
from florence2_server.__main__ import main

from tests.conftest import DEMO_CHECKPOINT, EXAMPLE_SCENE
from tests.operations.foreground import Foreground, foreground
from tests.server.observation import metric_sum

MODELS = ("captions", "documents")
KILLS = 3


def state_of(server: Foreground, model: str) -> str:
    """The state of a model's engines, from its health model."""
    about = triton.InferInput("ABOUT", [1], "BYTES")
    about.set_data_from_numpy(np.array([b"engine"], dtype=np.object_))
    with triton.InferenceServerClient(server.url) as client:
        return client.infer(f"{model}_health", [about], client_timeout=10).as_numpy("STATE")[0].decode()


@pytest.fixture(scope="module")
def documents(tmp_path_factory, random_checkpoint):
    """A second checkpoint, which a test may damage."""
    folder = tmp_path_factory.mktemp("checkpoints") / "documents"
    shutil.copytree(random_checkpoint, folder)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory, documents):
    """Two models whose own settings differ from the environment's."""
    models = [f"--model=captions={DEMO_CHECKPOINT}", f"--model=documents={documents}", "--set=captions.slots=2"]
    settings = {"FLORENCE2_SLOTS": "3", "FLORENCE2_CHECKPOINT": "/nowhere", "FLORENCE2_MAX_BACKOFF_SECONDS": "1"}
    with foreground(tmp_path_factory.mktemp("server"), *models, **settings) as server:
        server.wait_until_ready()
        yield server


def test_each_model_answers_under_its_name_with_its_checkpoint(server):
    with Client(server.url, model="captions") as captions, Client(server.url, model="documents") as documents:
        assert captions.read_text(EXAMPLE_SCENE).text == "CAFE OPEN"
        request = TaskRequest(caption={}, generation={"max_new_tokens": 7})
        found, other = (client.run(EXAMPLE_SCENE, request) for client in (captions, documents))
        assert found.text != other.text


def test_a_models_own_settings_take_precedence_over_the_environments(server, figure):
    slots = {name: metric_sum(server, "florence2_slots", model=name) for name in MODELS}
    figure("O4: slots of the model with a setting of its own (2), beside the environment's 3", int(slots["captions"]))
    assert slots == {"captions": 2, "documents": 3}


def test_a_named_model_streams_and_says_what_it_serves(server, documents, figure):
    """Neither is the default model, `florence2`."""
    request = TaskRequest(caption={}, generation={"max_new_tokens": 7})
    served = {"captions": (str(DEMO_CHECKPOINT), 2), "documents": (str(documents), 3)}
    events = {}
    for name in MODELS:
        with Client(server.url, model=name) as client:
            (info,) = client.server_info()
            assert (info.model, [(each.checkpoint, each.slots) for each in info.engines]) == (name, [served[name]])
            events[name] = list(client.stream(EXAMPLE_SCENE, request))
            answer = client.run(EXAMPLE_SCENE, request)
        *deltas, finished = events[name]
        assert isinstance(finished, Finished)
        assert "".join(each.text for each in deltas if isinstance(each, TextDelta)) == answer.text
        assert finished.answer.text == answer.text
    assert events["captions"] != events["documents"]
    figure("O4: events of a stream from the second of two named models", len(events["documents"]))


def test_one_models_failure_leaves_the_other_ready_and_answering(server, documents, figure):
    assert state_of(server, "documents") == "running"
    answers, is_over = [], threading.Event()

    def ask() -> None:
        with Client(server.url, model="captions", retry=None) as client:
            while not is_over.is_set():
                answers.append(client.read_text(EXAMPLE_SCENE).text)

    with ThreadPoolExecutor(1) as callers:
        asked = callers.submit(ask)
        for _ in range(KILLS):
            (engine,) = server.engines(documents.name)
            engine.kill()
            server.wait_until(lambda killed=engine.pid: killed not in [each.pid for each in server.engines()])
            server.wait_until(lambda: server.engines(documents.name))
        (documents / "config.json").rename(documents / "gone")
        server.engines(documents.name)[0].kill()
        server.wait_until(lambda: state_of(server, "documents") == "failed")
        assert state_of(server, "captions") == "running"
        with Client(server.url, model="documents", retry=None) as client, pytest.raises(UnavailableError):
            client.caption(EXAMPLE_SCENE, timeout=10)
        is_over.set()
        asked.result()
    figure("O4: one model's engine killed four times: the other's correct answers", answers.count("CAFE OPEN"))
    wrong = len(answers) - answers.count("CAFE OPEN")
    figure("O4: one model's engine killed four times: the other's wrong answers", wrong)
    assert answers
    assert set(answers) == {"CAFE OPEN"}
    restarts = {name: metric_sum(server, "florence2_engine_restarts_total", model=name) for name in MODELS}
    assert restarts["captions"] == 0
    assert restarts["documents"] > KILLS


def test_two_instances_of_a_model_are_two_engines(tmp_path, random_checkpoint, figure):
    """As an operator would configure them: in the configuration that `florence2-server repository` writes."""
    folder = tmp_path / "models"
    assert main(["repository", str(folder), f"--model=documents={random_checkpoint}", "--set=documents.slots=2"]) == 0
    config = folder / "documents" / "config.pbtxt"
    one = "instance_group [ { kind: KIND_AUTO count: 1 } ]"
    assert one in config.read_text()
    config.write_text(config.read_text().replace(one, "instance_group [ { kind: KIND_CPU count: 2 } ]"))
    with foreground(tmp_path, f"--model-repository={folder}") as server:
        server.wait_until_ready()
        assert len(server.engines()) == 2
        assert metric_sum(server, "florence2_slots", model="documents") == 4
        assert [metric_sum(server, "florence2_slots", model="documents", engine=name) for name in "01"] == [2, 2]
        with Client(server.url, model="documents") as client, ThreadPoolExecutor(4) as callers:
            request = TaskRequest(caption={}, generation={"max_new_tokens": 7})
            calls = [callers.submit(client.run, EXAMPLE_SCENE, request) for _ in range(8)]
            assert len({call.result().text for call in calls}) == 1
        answered = [metric_sum(server, "florence2_requests_total", engine=name) for name in "01"]
        figure("O4: two engines of one model: requests of 8 answered by the less busy one", int(min(answered)))
        assert sum(answered) == 8
        assert min(answered) > 0
        server.engines()[0].kill()
        server.wait_until(lambda: metric_sum(server, "florence2_engine_up", model="documents") == 1)
        assert state_of(server, "documents") == "running", "the other engine answers"
        server.wait_until(lambda: metric_sum(server, "florence2_engine_up", model="documents") == 2)
