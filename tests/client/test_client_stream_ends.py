"""How streams of both clients end before their last event: left, timed out, cancelled, closed."""

import asyncio
import threading
import time

import pytest
from florence2 import Finished, TextDelta
from florence2.client import AsyncClient, Client
from florence2.errors import DeadlineExceededError, RequestCancelledError

from tests.client.fake_server import WAIT_SECONDS, settled
from tests.client.streams import DELTAS, DETECTION, IMAGE, STREAM, TEXTS, collect, next_event

pytest_plugins = ["tests.client.fake_server", "tests.client.streams"]


def test_leaving_a_stream_cancels_its_request(server, use):
    server.stream(*DELTAS, hold=True)

    async def leave(client):
        if isinstance(client, AsyncClient):
            async with client.stream(IMAGE, DETECTION) as stream:
                async for _ in stream:
                    break
        else:
            with client.stream(IMAGE, DETECTION) as stream:
                for _ in stream:
                    break
        assert await asyncio.to_thread(server.cancelled.wait, WAIT_SECONDS)
        return await collect(stream)

    assert use(leave) == ([], None)


def test_leaving_a_loop_without_a_block_cancels_the_request_too(server, use):
    server.stream(*DELTAS, hold=True)

    async def leave(client):
        if isinstance(client, AsyncClient):
            async for _ in client.stream(IMAGE, DETECTION):
                break
        else:
            for _ in client.stream(IMAGE, DETECTION):
                break
        assert await asyncio.to_thread(server.cancelled.wait, WAIT_SECONDS)

    use(leave)


def test_a_finished_stream_ends_by_itself_on_the_server(server, use):
    """The server takes its time after the last event; the call must not be cancelled meanwhile."""
    server.stream(*STREAM, pause=0.3)

    async def stop_at_the_answer(client):
        stream = client.stream(IMAGE, DETECTION)
        while not isinstance(await next_event(stream), Finished):
            pass
        await settled(stream.close())

    use(stop_at_the_answer)
    assert server.ended_by_itself.wait(WAIT_SECONDS)


def test_a_timeout_ends_a_stream_at_the_client_and_on_the_server(server, stream):
    server.stream(DELTAS[0], hold=True)
    started = time.monotonic()
    found, error = stream(DETECTION, {"timeout": 0.5})
    assert time.monotonic() - started < 5
    assert found == [TextDelta(0, TEXTS[0])]
    assert type(error) is DeadlineExceededError
    assert str(error).startswith("no answer within 0.5 s: ")
    assert server.cancelled.wait(WAIT_SECONDS)


def test_a_timeout_that_passes_before_the_first_event_sends_nothing(server, error):
    assert "before the request was sent" in str(error(DETECTION, {"timeout": 1e-9}))
    assert not server.received


def test_closing_the_client_ends_its_streams(server, client_type):
    server.stream(DELTAS[0], hold=True)

    async def close():
        client = client_type(server.url)
        stream = client.stream(IMAGE, DETECTION)
        await next_event(stream)
        if isinstance(client, Client):
            timer = threading.Timer(0.1, client.close)
            timer.start()
            with pytest.raises(RequestCancelledError):
                next(stream)
            timer.join()
        else:
            waiting = asyncio.create_task(next_event(stream))
            await asyncio.sleep(0.1)
            await client.close()
            with pytest.raises(RequestCancelledError):
                await waiting

    asyncio.run(close())
    assert server.cancelled.wait(WAIT_SECONDS)


def test_cancelling_a_task_cancels_its_stream(server):
    server.stream(DELTAS[0], hold=True)

    async def cancel():
        async with AsyncClient(server.url) as client:
            task = asyncio.create_task(collect(client.stream(IMAGE, DETECTION)))
            assert await asyncio.to_thread(server.arrived.wait, WAIT_SECONDS)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancel())
    assert server.cancelled.wait(WAIT_SECONDS)


def test_a_closed_client_streams_nothing(server, use):
    async def stream_after_close(client):
        await settled(client.close())
        return await collect(client.stream(IMAGE, DETECTION))

    _, error = use(stream_after_close)
    assert (type(error), str(error)) == (RuntimeError, "the client is closed")
    assert not server.received
