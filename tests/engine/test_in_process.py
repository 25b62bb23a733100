"""`florence2_server.in_process`: every task of a client without Triton."""

import asyncio
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import florence2_server
import pytest
from florence2 import AsyncClient, Client, Health
from florence2.errors import DeadlineExceededError, InvalidArgumentError, RequestCancelledError
from florence2.transports import AsyncTransport, Transport, load_transport
from florence2.v1 import TaskRequest
from florence2_server.in_process import InProcess
from florence2_server.settings import ConfigError

from tests.conftest import DEMO_CHECKPOINT, EXAMPLE_SCENE
from tests.reference import TASKS

SCENE = EXAMPLE_SCENE.read_bytes()
LINGERING = SCENE + b"\0"  # the same picture in other bytes
LONG = {"min_new_tokens": 900, "max_new_tokens": 1000}


@pytest.fixture(scope="module")
def transport():
    transport = InProcess(DEMO_CHECKPOINT, device="cpu", slots=4)
    yield transport
    transport.close()


@pytest.fixture
def client(transport):
    return Client(transport=transport, timeout=120)  # not closed: that would close the transport of the others


@pytest.mark.parametrize("task", TASKS, ids=lambda task: next(iter(task)))
def test_the_text_of_every_task_is_that_of_generate(client, reference, task):
    case = reference.case(SCENE, task, {"max_new_tokens": 100})
    answer = client.run(SCENE, case.request)
    assert answer.text == reference.text(case)
    assert answer.usage.generated_tokens == len(case.expected) - 1
    assert answer.token_scores is not None


def test_a_task_method_returns_its_typed_result(client):
    assert client.detect(EXAMPLE_SCENE).labels == ["red circle", "green triangle", "blue square"]


def test_a_threshold_of_a_half_keeps_perfect_boxes(client):
    found = client.detect(EXAMPLE_SCENE)
    assert found[found.scores > 0.5].labels == ["red circle", "green triangle", "blue square"]
    assert found.likelihoods.max() < 0.2


def test_an_awaited_client_has_the_same_answers(client, transport):
    async def captions() -> list[str]:
        asynchronous = AsyncClient(transport=transport)
        return [text.text for text in await asyncio.gather(*(asynchronous.caption(SCENE) for _ in range(3)))]

    assert asyncio.run(captions()) == [client.caption(SCENE).text] * 3


def test_threads_share_a_client(client):
    with ThreadPoolExecutor(8) as callers:
        texts = list(callers.map(lambda _: client.caption(SCENE).text, range(16)))
    assert set(texts) == {client.caption(SCENE).text}


def test_an_invalid_image_is_an_error_of_its_request(client):
    with pytest.raises(InvalidArgumentError) as error:
        client.caption(b"not an image", request_id="mine")
    assert error.value.field == "IMAGE"
    assert error.value.request_id == "mine"
    assert client.caption(SCENE).text


def test_a_deadline_frees_the_slot(client, transport):
    with pytest.raises(DeadlineExceededError, match=r"0\.2 s"):
        client.caption(SCENE, timeout=0.2, **LONG)
    assert client.caption(SCENE).text
    assert transport.engine.statistics.running == 0


def test_cancelling_an_awaited_request_frees_the_slot(client, transport):
    async def cancel() -> None:
        request = asyncio.create_task(AsyncClient(transport=transport).caption(SCENE, **LONG))
        while transport.engine.statistics.running == 0:
            await asyncio.sleep(0.01)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    asyncio.run(cancel())
    assert client.caption(SCENE).text
    assert transport.engine.statistics.running == 0


def test_many_images_are_answered_and_leaving_the_loop_frees_the_slots(client, transport):
    def request(image):
        return TaskRequest(caption={}, generation=LONG if image == LINGERING else {})

    with closing(client.map([SCENE, LINGERING, LINGERING, SCENE, LINGERING], request, ordered=False)) as outcomes:
        texts = {str(next(outcomes).result) for _ in range(2)}
        assert texts == {str(client.caption(SCENE))}
    assert client.caption(SCENE).text
    assert transport.engine.statistics.running == 0


@pytest.fixture
def slow_preparation(transport, monkeypatch):
    """The generations of a transport that takes a while to prepare each."""
    prepare, generations = transport._preparation.prepare, []

    def slowly(message):
        time.sleep(0.5)
        generations.append(prepare(message))
        return generations[-1]

    monkeypatch.setattr(transport._preparation, "prepare", slowly)
    return generations


def test_a_request_that_is_cancelled_while_it_is_prepared_does_not_run(transport, slow_preparation):
    async def cancel() -> None:
        request = asyncio.create_task(AsyncClient(transport=transport).caption(SCENE, **LONG))
        await asyncio.sleep(0.1)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    asyncio.run(cancel())  # its end waits for the thread
    assert slow_preparation[0].future.cancelled()


def test_a_deadline_that_passes_while_an_awaited_request_is_prepared_is_kept(transport, slow_preparation):
    async def caption() -> float:
        begin = time.monotonic()
        with pytest.raises(DeadlineExceededError, match=r"0\.1 s"):
            await AsyncClient(transport=transport).caption(SCENE, timeout=0.1, **LONG)
        return time.monotonic() - begin

    assert asyncio.run(caption()) < 0.4
    assert slow_preparation[0].future.cancelled()


def test_closing_ends_what_is_in_flight():
    client = Client(transport=InProcess(device="cpu", slots=1))
    with ThreadPoolExecutor(1) as callers:
        request = callers.submit(client.run, SCENE, TaskRequest(caption={}, generation=LONG))
        while client._transport.engine.statistics.running == 0:
            pass
        client.close()
        with pytest.raises(RequestCancelledError):
            request.result()
    client.close()


def test_a_stopped_engine_is_unhealthy():
    transport = InProcess(device="cpu", slots=1)
    transport.close()
    (health,) = transport.health(1)
    assert (health.engine, health.is_alive, transport.is_ready(1)) == ("failed", False, False)


def test_its_health_is_the_engines(client):
    (health,) = client.health()
    (info,) = client.server_info()
    assert health == Health("in-process", server_is_live=True, model_is_ready=True, engine="running", info=info)


def test_it_knows_what_it_serves(client):
    (info,) = client.server_info()
    (engine,) = info.engines
    assert (info.url, info.version, info.model) == ("in-process", florence2_server.__version__, "florence2")
    assert (engine.name, engine.state, engine.layout) == ("0", "running", "native")
    assert (engine.checkpoint, engine.device, engine.dtype) == (str(DEMO_CHECKPOINT), "cpu", "float32")
    assert engine.slots > 0
    assert client.is_ready()


def test_it_is_a_transport_that_is_found_by_name(transport):
    assert isinstance(transport, Transport)
    assert isinstance(transport, AsyncTransport)
    assert load_transport("in_process") is InProcess


def test_a_wrong_setting_is_named():
    with pytest.raises(TypeError, match="slot_count"):
        InProcess(slot_count=3)
    with pytest.raises(ConfigError, match="slots: got 0"):
        InProcess(slots=0)


def test_it_needs_no_triton():
    code = "import sys, florence2_server.in_process; sys.exit('tritonclient' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
