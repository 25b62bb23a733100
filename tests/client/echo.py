"""A transport that answers with the image itself, and clients of it that map images.

PYTEST_DONT_REWRITE: as in fake_server.py.
"""

import asyncio
import contextlib
import threading
import time

import pytest
from florence2 import v1
from florence2.testing import MockTransport, task_response
from florence2.transports import Reply

from tests.client.fake_server import settled

NUMBERS = [b"%d" % number for number in range(100)]


async def collect(outcomes):
    """All outcomes of either client."""
    return list(outcomes) if hasattr(outcomes, "__next__") else [outcome async for outcome in outcomes]


class Echo(MockTransport):
    """Both kinds of transport: the answer is the image's text, after as many seconds as a function says.

    Requests about the later half of `NUMBERS` are not answered before `until_active` of them have been under way at
    once, or 30 seconds have passed: the most at once does not depend on how fast a client starts them.
    """

    def __init__(self, seconds=lambda _: 0.0, until_active=1):
        self._seconds = seconds
        self._until_active = until_active
        self._lock = threading.Lock()
        self.sent, self.ended = [], []
        self.active = self.most_active = 0

    @contextlib.contextmanager
    def _sending(self, image, request, context):
        with self._lock:
            self.sent.append((image, v1.TaskRequest.FromString(request.SerializeToString()), context))
            self.active += 1
            self.most_active = max(self.active, self.most_active)
        try:
            yield
        finally:
            with self._lock:
                self.active -= 1
                self.ended.append(image)

    def _pauses(self, image):
        """Short pauses, until enough requests have been under way at once."""
        for _ in range(30_000):
            if self.most_active >= self._until_active or image not in NUMBERS[len(NUMBERS) // 2 :]:
                return
            yield 0.001

    def infer(self, image, request, context):
        with self._sending(image, request, context):
            for pause in self._pauses(image):
                time.sleep(pause)
            time.sleep(self._seconds(image))
            return Reply(task_response(image.decode()))

    async def infer_async(self, image, request, context):
        with self._sending(image, request, context):
            for pause in self._pauses(image):
                await asyncio.sleep(pause)
            await asyncio.sleep(self._seconds(image))
            return Reply(task_response(image.decode()))


@pytest.fixture
def map_over(client_type):
    """`map_over(transport, images, task, **arguments)`: all outcomes of a client over a transport."""

    def map_over(transport, images, task="caption", **arguments):
        async def act():
            client = client_type(transport=transport)
            try:
                return await collect(client.map(images, task, **arguments))
            finally:
                await settled(client.close())

        return asyncio.run(act())

    return map_over


async def collect_of(client, images, **arguments):
    return await collect(client.map(images, "caption", **arguments))
