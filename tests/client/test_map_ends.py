"""How `map` ends: after errors of the caller, and if the loop is left."""

import asyncio
import contextlib
import gc
import subprocess
import sys
import threading

import pytest
from florence2 import v1
from florence2.client import AsyncClient, Client
from florence2.errors import (
    InvalidArgumentError,
)
from florence2.testing import MockTransport, task_response

from tests.client.echo import NUMBERS, Echo, collect
from tests.client.fake_server import WAIT_SECONDS, settled

pytest_plugins = ["tests.client.fake_server", "tests.client.echo"]


class OwnError(Exception):
    pass


def failing_images(server):
    yield from NUMBERS[:3]
    assert server.arrived.wait(WAIT_SECONDS)
    raise OwnError("the list is gone")


async def failing_asynchronous_images(server):
    for image in NUMBERS[:3]:
        yield image
    assert await asyncio.to_thread(server.arrived.wait, WAIT_SECONDS)
    raise OwnError("the list is gone")


@pytest.mark.parametrize(
    ("client_type", "images"), [(Client, failing_images), (AsyncClient, failing_asynchronous_images)]
)
def test_an_error_of_the_callers_images_is_raised_and_cancels_the_rest(server, use, images):
    server.hold()
    with pytest.raises(OwnError, match="the list is gone"):
        use(lambda client: collect(client.map(images(server), "caption")), timeout=None)
    assert server.cancelled.wait(WAIT_SECONDS)
    nothing_is_left()


def test_an_error_of_the_callers_function_is_raised(map_over):
    def request(image):
        raise OwnError(f"what is {image!r}?")

    with pytest.raises(OwnError, match="what is"):
        map_over(Echo(), NUMBERS, request)
    nothing_is_left()


def test_errors_of_the_callers_function_after_the_first_one_are_not_logged(caplog):
    def request(_):
        raise OwnError

    async def images():
        for image in NUMBERS:
            yield image  # without giving way to the loop that receives the outcomes

    async def act():
        async with AsyncClient(transport=Echo()) as client:
            outcomes = client.map(images(), request, concurrency=4)
            with pytest.raises(OwnError):
                await anext(outcomes)

    asyncio.run(act())
    gc.collect()
    assert not caplog.records


def test_an_error_of_this_package_in_the_callers_function_is_that_of_the_image(map_over):
    def request(image):
        if image == b"1":
            raise FileNotFoundError("1.txt")
        return v1.TaskRequest(caption={})

    outcomes = map_over(Echo(), NUMBERS[:3], request)
    assert [type(outcome.error) for outcome in outcomes] == [type(None), FileNotFoundError, type(None)]


def test_an_invalid_request_for_one_image_is_that_images_error(map_over):
    def request(image):
        return v1.TaskRequest(phrase_grounding={"caption": "" if image == b"1" else "a dog"})

    outcomes = map_over(MockTransport(lambda *_: task_response("")), NUMBERS[:3], request)
    assert [type(outcome.error) for outcome in outcomes] == [type(None), InvalidArgumentError, type(None)]


def nothing_is_left():
    assert [thread.name for thread in threading.enumerate() if "florence2-map" in thread.name] == []


async def received(server, count):
    """Wait until a server has received that number of requests."""
    for _ in range(int(WAIT_SECONDS * 100)):
        if len(server.received) >= count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"only {len(server.received)} requests arrived")


def test_leaving_the_loop_cancels_what_is_under_way_and_leaves_no_threads(server):
    """The requests are cancelled on the server, too."""
    server.hold_after(1)
    with Client(server.url, timeout=None) as client:
        for _ in client.map(NUMBERS, "caption", concurrency=2, ordered=False):
            asyncio.run(received(server, 3))
            break
        nothing_is_left()
        assert server.cancelled.wait(WAIT_SECONDS)


def test_leaving_the_loop_cancels_what_is_under_way_and_leaves_no_tasks(server):
    server.hold_after(1)

    async def act():
        async with AsyncClient(server.url, timeout=None) as client:
            async for _ in client.map(NUMBERS, "caption", concurrency=2, ordered=False):
                await received(server, 3)
                break
            for _ in range(100):
                await asyncio.sleep(0.01)
                if len(asyncio.all_tasks()) == 1:
                    break
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(act())
    assert server.cancelled.wait(WAIT_SECONDS)


def test_cancelling_the_task_that_iterates_cancels_the_requests(server):
    server.hold()

    async def act():
        async with AsyncClient(server.url, timeout=None) as client:
            iterating = asyncio.create_task(collect(client.map(NUMBERS, "caption")))
            assert await asyncio.to_thread(server.arrived.wait, WAIT_SECONDS)
            iterating.cancel()
            with pytest.raises(asyncio.CancelledError):
                await iterating
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(act())
    assert server.cancelled.wait(WAIT_SECONDS)


INTERRUPTED = """
import os, signal, sys, threading
from florence2 import Client
threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    with Client(sys.argv[1], timeout=None) as client:
        list(client.map([b"image"] * 100, "caption"))
except KeyboardInterrupt:
    print("interrupted", [thread.name for thread in threading.enumerate() if "florence2-map" in thread.name])
"""


def test_ctrl_c_ends_the_loop(server):
    server.hold()
    command = [sys.executable, "-c", INTERRUPTED, server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "interrupted []\n"


def test_a_transport_that_cannot_cancel_is_waited_for():
    echo = Echo(lambda _: 0.2)
    with Client(transport=echo) as client, contextlib.closing(client.map(NUMBERS, "caption")) as outcomes:
        next(outcomes)
    assert echo.active == 0
    nothing_is_left()


def test_a_closed_client_ends_the_loop(client_type):
    async def act():
        client = client_type(transport=Echo())
        outcomes = client.map(NUMBERS, "caption", concurrency=1)
        await settled(client.close())
        await collect(outcomes)

    with pytest.raises(RuntimeError, match="the client is closed"):
        asyncio.run(act())
