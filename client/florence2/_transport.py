"""The wire: one Triton model over gRPC, as KServe v2. Nothing but this and `_statuses` knows tritonclient.

What is tried again, where and when is `_attempts`'s to say. gRPC itself sends a call again that never left this
machine.
"""

# tritonclient comes without types.
# mypy: disable-error-code="no-untyped-call"

import asyncio
import contextlib
import struct
import threading
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
from tenacity import AsyncRetrying, Retrying, sleep_using_event

from florence2._attempts import Attempts
from florence2._calls import Call
from florence2._destination import Destination
from florence2._health import Health, engine_state
from florence2._statuses import own_cancellation, own_errors
from florence2._tracing import call_span
from florence2.errors import (
    DeadlineExceededError,
    Florence2Error,
    RequestCancelledError,
    ServerError,
    UnavailableError,
    located,
)

_MICROSECONDS = 1_000_000


class Reply(NamedTuple):
    """The bytes of a response, and the server that they are from."""

    payload: bytes
    url: str


class Transport:
    """Calls that block. Safe to share among threads."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._attempts = Attempts(len(destination.urls), destination.retry)
        self._clients = [tritonclient.grpc.InferenceServerClient(**channel) for channel in destination.channels()]
        self._closing = threading.Event()

    def infer(self, image: bytes, call: Call) -> Reply:
        """The response to a call about an encoded image."""
        endpoints = self._attempts.endpoints()
        with call_span(self._destination.model, call), located(None, call.request_id):
            retrying = Retrying(**self._attempts.policy(call), sleep=sleep_using_event(self._closing))
            return retrying(lambda: self._infer(next(endpoints), image, call))

    def _infer(self, endpoint: int, image: bytes, call: Call) -> Reply:
        url = self._destination.urls[endpoint]
        with located(url, call.request_id), own_errors(call.timeout):
            _require_open(self._closing)
            arguments = {**self._destination.model_arguments(), **_infer_arguments(image, call)}
            return Reply(_element(self._clients[endpoint].infer(**arguments), "RESPONSE"), url)

    def is_ready(self, timeout: float | None) -> bool:
        """Whether a server says that the model is loaded; each is given `timeout` seconds."""
        return any(self._is_ready(client, timeout) for client in self._clients)

    def _is_ready(self, client: Any, timeout: float | None) -> bool:
        try:
            with own_errors():
                return bool(client.is_model_ready(**self._destination.model_arguments(), client_timeout=timeout))
        except (UnavailableError, DeadlineExceededError):
            return False

    def health(self, timeout: float) -> list[Health]:
        """How each server is, within so many seconds each."""
        return [
            self._health(url, client, timeout)
            for url, client in zip(self._destination.urls, self._clients, strict=True)
        ]

    def _health(self, url: str, client: Any, timeout: float) -> Health:
        live = ready = False
        try:
            with own_errors():
                options = {"headers": self._destination.metadata(), "client_timeout": timeout}
                live = client.is_server_live(**options)
                ready = client.is_model_ready(**self._destination.model_arguments(), client_timeout=timeout)
                result = client.infer(self._destination.health_model, [_tensor("ABOUT", [b"engine"])], **options)
                return Health(url, live, ready, engine_state(_element(result, "STATE").decode()))
        except Florence2Error as error:
            return Health(url, live, ready, "unreachable", str(error))

    def close(self) -> None:
        """Give the connections back; calls in flight are cancelled."""
        self._closing.set()
        for client in self._clients:
            client.close()


class AsyncTransport:
    """Calls that are awaited, in one event loop."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._attempts = Attempts(len(destination.urls), destination.retry)
        self._channels = destination.channels()
        self._closing = asyncio.Event()

    @cached_property
    def _clients(self) -> list[Any]:
        # Made by the first call: a channel belongs to the event loop that runs when it is made.
        return [tritonclient.grpc.aio.InferenceServerClient(**channel) for channel in self._channels]

    async def infer(self, image: bytes, call: Call) -> Reply:
        """The response to a call about an encoded image."""
        endpoints = self._attempts.endpoints()

        async def attempt() -> Reply:
            return await self._infer(next(endpoints), image, call)

        with call_span(self._destination.model, call), located(None, call.request_id):
            return await AsyncRetrying(**self._attempts.policy(call), sleep=self._sleep)(attempt)

    async def _infer(self, endpoint: int, image: bytes, call: Call) -> Reply:
        url = self._destination.urls[endpoint]
        with located(url, call.request_id), own_errors(call.timeout), own_cancellation():
            _require_open(self._closing)
            arguments = {**self._destination.model_arguments(), **_infer_arguments(image, call)}
            return Reply(_element(await self._clients[endpoint].infer(**arguments), "RESPONSE"), url)

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)

    async def is_ready(self, timeout: float | None) -> bool:
        """Whether a server says that the model is loaded; each is given `timeout` seconds."""
        return any([await self._is_ready(client, timeout) for client in self._clients])

    async def _is_ready(self, client: Any, timeout: float | None) -> bool:
        try:
            with own_errors(), own_cancellation():
                asked = client.is_model_ready(**self._destination.model_arguments(), client_timeout=timeout)
                return bool(await asked)
        except (UnavailableError, DeadlineExceededError):
            return False

    async def health(self, timeout: float) -> list[Health]:
        """How each server is, within so many seconds."""
        pairs = zip(self._destination.urls, self._clients, strict=True)
        return list(await asyncio.gather(*(self._health(url, client, timeout) for url, client in pairs)))

    async def _health(self, url: str, client: Any, timeout: float) -> Health:
        live = ready = False
        try:
            with own_errors(), own_cancellation():
                options = {"headers": self._destination.metadata(), "client_timeout": timeout}
                live = await client.is_server_live(**options)
                ready = await client.is_model_ready(**self._destination.model_arguments(), client_timeout=timeout)
                result = await client.infer(self._destination.health_model, [_tensor("ABOUT", [b"engine"])], **options)
                return Health(url, live, ready, engine_state(_element(result, "STATE").decode()))
        except Florence2Error as error:
            return Health(url, live, ready, "unreachable", str(error))

    async def close(self) -> None:
        """Give the connections back; calls in flight are cancelled."""
        self._closing.set()
        if "_clients" in vars(self):
            for client in self._clients:
                await client.close()


def _require_open(closing: threading.Event | asyncio.Event) -> None:
    """A client may be closed while a call waits for its next attempt."""
    if closing.is_set():
        raise RequestCancelledError("the client was closed while the call was in flight")


def _infer_arguments(image: bytes, call: Call) -> dict[str, Any]:
    # A batch of one row.
    inputs = [_tensor("IMAGE", [[image]]), _tensor("REQUEST", [[call.request.SerializeToString()]])]
    remaining = call.remaining()
    return {
        "inputs": inputs,
        "request_id": call.request_id,
        "priority": call.priority,
        # Triton counts 0 as no limit.
        "timeout": None if remaining is None else max(1, round(remaining * _MICROSECONDS)),
        "client_timeout": remaining,
    }


def _tensor(name: str, values: list[Any]) -> Any:
    # Objects, because numpy's own bytes type loses trailing zeros.
    array = np.array(values, dtype=np.object_)
    return tritonclient.grpc.InferInput(name, array.shape, "BYTES").set_data_from_numpy(array)


def _element(result: Any, name: str) -> bytes:
    """The one element of a tensor."""
    try:
        tensor = result.as_numpy(name)
    except (struct.error, TypeError, ValueError) as error:  # lengths or a shape that do not fit
        raise ServerError(f"the {name} tensor cannot be read") from error
    if tensor is None or tensor.size != 1 or not isinstance(tensor.item(), bytes):
        raise ServerError(f"the response has no {name} tensor with one BYTES element")
    return bytes(tensor.item())
