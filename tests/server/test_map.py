"""`map` of both clients over a real tritonserver whose queue is small: no picture is lost."""

import asyncio
import io
import time
from collections import Counter
from collections.abc import Iterator

import florence2
import PIL.Image
import pytest
from florence2 import v1

PICTURES = 250
CONCURRENCY = 32
# The number of pictures, whose embeddings the server caches, so that the time goes into requests and refusals.
DISTINCT = 16
REQUEST = v1.TaskRequest(caption={}, generation={"max_new_tokens": 1})


@pytest.fixture(scope="module")
def small_server(start_server):
    """A server that holds a few requests: two in its batch, one ahead of it, four in its queue."""
    return start_server(FLORENCE2_SLOTS="2", FLORENCE2_AHEAD="1", FLORENCE2_QUEUE_REQUESTS="4")


def pictures(count: int) -> Iterator[bytes]:
    """Tiny pictures of a few colors, made one after another."""
    for number in range(count):
        file = io.BytesIO()
        PIL.Image.new("RGB", (8, 8), (number % DISTINCT, 64, 128)).save(file, "PNG")
        yield file.getvalue()


def failures(url: str, count: int, client_type: type) -> Counter[str]:
    """Map pictures; the errors, by their text."""
    arguments = (pictures(count), REQUEST)

    async def act() -> list[tuple[int, str]]:
        if client_type is florence2.Client:
            with florence2.Client(url) as client:
                outcomes = list(client.map(*arguments, concurrency=CONCURRENCY))
        else:
            async with florence2.AsyncClient(url) as client:
                outcomes = [each async for each in client.map(*arguments, concurrency=CONCURRENCY)]
        return [(each.index, str(each.error or "")) for each in outcomes]

    outcomes = asyncio.run(act())
    assert [index for index, _ in outcomes] == list(range(count))
    return Counter(error for _, error in outcomes if error)


@pytest.mark.parametrize("client_type", [florence2.Client, florence2.AsyncClient])
def test_a_small_queue_loses_no_picture(small_server, client_type, figure):
    started = time.monotonic()
    assert not failures(small_server.grpc_url, PICTURES, client_type)
    rate = PICTURES / (time.monotonic() - started)
    figure(f"pictures a second by {client_type.__name__}.map, 32 at once, with a queue of 4", rate)


@pytest.mark.slow
@pytest.mark.parametrize("client_type", [florence2.Client, florence2.AsyncClient])
def test_five_thousand_pictures_are_answered(small_server, client_type, figure):
    started = time.monotonic()
    assert not failures(small_server.grpc_url, 5_000, client_type)
    figure(f"seconds of 5,000 pictures by {client_type.__name__}.map, with a queue of 4", time.monotonic() - started)
