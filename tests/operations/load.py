"""Callers of the outages. What happens to their requests is for the server to count, not for them."""

import io
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import PIL.Image
import tritonclient.grpc as triton
from florence2.v1 import GenerationOptions, TaskRequest
from florence2_server.tritonserver import TritonServer
from tritonclient.utils import InferenceServerException

from tests.server.conftest import infer

ONE_TOKEN = GenerationOptions(num_beams=1, max_new_tokens=1)
PATIENCE_SECONDS = 60


def picture(number: int) -> bytes:
    """An image that differs from those of all other numbers."""
    pixels = np.random.default_rng(number).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def prompt(text: str, timeout: float = 0.0) -> TaskRequest:
    """A free prompt with an answer of one token."""
    return TaskRequest(prompt=text, timeout_seconds=timeout, generation=ONE_TOKEN)


class Callers:
    """Callers in closed loops, who ignore errors.

    Args:
        server: receives the requests.
        request: makes the image and the request with a number, which counts up over all callers.
        pause: seconds that a caller waits between two requests.
        patience: seconds after which a caller leaves.
    """

    def __init__(
        self,
        server: TritonServer,
        request: Callable[[int], tuple[bytes, TaskRequest]],
        pause: float = 0.0,
        patience: Callable[[int], float] = lambda _: PATIENCE_SECONDS,
    ) -> None:
        self._server, self._request, self._pause, self._patience = server, request, pause, patience
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self.first_error_at: float | None = None

    @contextmanager
    def calling(self, callers: int, every: float = 0.0) -> Iterator["Callers"]:
        """Start callers, one every so many seconds, that send requests until the context ends."""
        with ThreadPoolExecutor(callers) as pool:
            runs = [pool.submit(self._run, number * every) for number in range(callers)]
            try:
                yield self
            finally:
                self._stop.set()
        for run in runs:
            run.result()

    def _run(self, begin: float) -> None:
        self._stop.wait(begin)
        with triton.InferenceServerClient(self._server.grpc_url) as client:
            while not self._stop.is_set():
                self._send(client, next(self._numbers))
                self._stop.wait(self._pause)

    def _send(self, client: triton.InferenceServerClient, number: int) -> None:
        image, request = self._request(number)
        try:
            infer(client, image, request, client_timeout=self._patience(number))
        except InferenceServerException:
            self.first_error_at = self.first_error_at or time.time()
