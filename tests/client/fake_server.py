"""A KServe v2 server on loopback with configurable responses, which records the requests that it receives.

A test module loads its fixtures with `pytest_plugins = ["tests.client.fake_server"]`. PYTEST_DONT_REWRITE: by
then the module has imported it, and pytest would warn that it can rewrite no assert here.
"""

import asyncio
import inspect
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent import futures
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from florence2 import Retry, v1
from florence2.client import AsyncClient, Client
from florence2.scores import TokenScores
from tritonclient.grpc import service_pb2, service_pb2_grpc

WAIT_SECONDS = 10.0
QUICK = Retry(attempts=4, initial_backoff=0.01, max_backoff=0.02)
IMAGE_SIZE = (1000, 500)
STOP = v1.FinishReason.FINISH_REASON_STOP
LENGTH = v1.FinishReason.FINISH_REASON_LENGTH

Behavior = Callable[[grpc.ServicerContext], service_pb2.ModelInferResponse]


@dataclass(frozen=True)
class Received:
    """A ModelInfer call, or the request of a ModelStreamInfer call, as received."""

    message: service_pb2.ModelInferRequest
    metadata: dict[str, str]
    seconds_left: float | None
    peer: str

    @property
    def tensors(self) -> dict[str, tuple[str, list[int], bytes]]:
        """Datatype, shape and raw content by name."""
        contents = zip(self.message.inputs, self.message.raw_input_contents, strict=True)
        return {tensor.name: (tensor.datatype, list(tensor.shape), raw) for tensor, raw in contents}

    def element(self, name: str) -> bytes:
        """The only element of a BYTES tensor, which follows its length."""
        raw = self.tensors[name][2]
        assert struct.unpack_from("<I", raw)[0] == len(raw) - 4
        return raw[4:]

    @property
    def request(self) -> v1.TaskRequest:
        return v1.TaskRequest.FromString(self.element("REQUEST"))

    @property
    def content(self) -> v1.TaskRequest:
        """The request without its priority and its timeout, which says how long is left."""
        request = self.request
        request.ClearField("priority")
        request.ClearField("timeout_seconds")
        return request


class FakeServer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Responds to every call as the last of `answer`, `respond`, `compute`, `fail` or `hold` says.

    A stream first does the same, except for the response; then it consists of the events that `stream` was given.
    """

    def __init__(self) -> None:
        self.url = ""
        self.received: list[Received] = []
        self.ready = True
        self.engine_state: bytes | None = b"running"
        self.info: bytes | None = None
        self.health_metadata: dict[str, str] = {}
        self.arrived = threading.Event()
        self.cancelled = threading.Event()
        self.released = threading.Event()
        self.ended_by_itself = threading.Event()
        self.before_stream: Callable[[], None] = lambda: None
        self._events: tuple[v1.StreamEvent | str | bytes, ...] = ()
        self._holds_health = False
        self._holds_streams = False
        self._pause = 0.0
        self._behave: Behavior = lambda _: infer_response(task_response("</s><s>nothing</s>"))

    def answer(self, text: str, finish_reason: v1.FinishReason = STOP) -> None:
        """Answer with a generated text."""
        self.respond(task_response(text, finish_reason))

    def compute(self, respond: Callable[[], bytes]) -> None:
        """Respond with what a function returns for the RESPONSE tensor."""
        self._behave = lambda _: infer_response(respond())

    def respond(self, response: bytes | service_pb2.ModelInferResponse) -> None:
        """Respond with these bytes in the RESPONSE tensor, or with this complete message."""
        whole = infer_response(response) if isinstance(response, bytes) else response
        self._behave = lambda _: whole

    def stream(self, *events: v1.StreamEvent | str | bytes, hold: bool = False, pause: float = 0.0) -> None:
        """Answer streams with these events, error messages of Triton, or bytes in the RESPONSE tensor.

        Args:
            events: what is sent.
            hold: whether the stream goes on after them until it is cancelled or the test ends.
            pause: seconds between the last event and the stream's end.
        """
        self._events, self._holds_streams, self._pause = events, hold, pause

    def fail(self, status: grpc.StatusCode, message: str) -> None:
        """Reject every call, readiness checks included."""
        self._behave = lambda context: context.abort(status, message)

    def fail_first(self, times: int, status: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        """Reject that number of calls, then respond as before."""
        before, rejections = self._behave, iter(range(times))

        def reject(context: grpc.ServicerContext) -> service_pb2.ModelInferResponse:
            if next(rejections, None) is not None:
                context.abort(status, "the queue is full")
            return before(context)

        self._behave = reject

    def hold(self) -> None:
        """Do not respond until the call is cancelled or the test ends."""
        self._behave = self._wait

    def hold_after(self, times: int) -> None:
        """Respond to that number of calls as before, then hold."""
        before, answers = self._behave, iter(range(times))

        def answer_or_hold(context: grpc.ServicerContext) -> service_pb2.ModelInferResponse:
            return self._wait(context) if next(answers, None) is None else before(context)

        self._behave = answer_or_hold

    def hold_health(self) -> None:
        """Do not respond to requests for health until the test ends."""
        self._holds_health = True

    def _wait(self, context: grpc.ServicerContext) -> service_pb2.ModelInferResponse:
        self._watch(context)
        self.released.wait(WAIT_SECONDS)
        return service_pb2.ModelInferResponse()

    def _watch(self, context: grpc.ServicerContext) -> None:
        context.add_callback(lambda: (self.cancelled.set(), self.released.set()))

    def ModelInfer(self, request, context):  # noqa: N802  # gRPC's name
        if request.model_name == "florence2_health":
            if self.engine_state is None:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the stub is not healthy")
            self.health_metadata = dict(context.invocation_metadata())
            self.released.wait(WAIT_SECONDS if self._holds_health else 0)
            response = infer_response(self.engine_state, "STATE")
            if self.info is not None:
                response.MergeFrom(infer_response(self.info, "INFO"))
            return response
        self._record(request, context)
        return self._behave(context)

    def ModelStreamInfer(self, request_iterator, context):  # noqa: N802  # gRPC's name
        for request in request_iterator:
            self._record(request, context)
            self.before_stream()
            self._behave(context)
            if self._holds_streams:
                self._watch(context)  # not later: gRPC does not resume the stream once it is cancelled
            for event in self._events:
                yield stream_response(event)
            self.released.wait(WAIT_SECONDS if self._holds_streams else self._pause)
            if context.is_active():
                self.ended_by_itself.set()

    def _record(self, request: service_pb2.ModelInferRequest, context: grpc.ServicerContext) -> None:
        metadata = dict(context.invocation_metadata())
        self.received.append(Received(request, metadata, context.time_remaining(), context.peer()))
        self.arrived.set()

    def ServerLive(self, request, context):  # noqa: ARG002, N802  # gRPC's name
        return service_pb2.ServerLiveResponse(live=True)

    def ModelReady(self, request, context):  # noqa: N802  # gRPC's name
        assert request.name == "florence2"
        # Only behaviors that call abort(), which raises, matter here.
        self._behave(context)
        return service_pb2.ModelReadyResponse(ready=self.ready)

    @property
    def last(self) -> Received:
        return self.received[-1]


def task_response(
    text: str,
    finish_reason: v1.FinishReason = STOP,
    size: tuple[int, int] = IMAGE_SIZE,
    token_scores: TokenScores | None = None,
) -> bytes:
    """A raw response like the real server's."""
    return v1.TaskResponse(
        text=text,
        image_size=v1.ImageSize(width=size[0], height=size[1]),
        finish_reason=finish_reason,
        usage=v1.Usage(prompt_tokens=9, generated_tokens=7),
        token_log_probabilities=token_scores.log_probabilities if token_scores else (),
        token_ends=token_scores.ends if token_scores else (),
    ).SerializeToString()


def infer_response(element: bytes, name: str = "RESPONSE") -> service_pb2.ModelInferResponse:
    """A response with one BYTES tensor of one element."""
    output = service_pb2.ModelInferResponse.InferOutputTensor(name=name, datatype="BYTES", shape=[1, 1])
    raw = struct.pack("<I", len(element)) + element
    return service_pb2.ModelInferResponse(model_name="florence2", outputs=[output], raw_output_contents=[raw])


def stream_response(event: v1.StreamEvent | str | bytes) -> service_pb2.ModelStreamInferResponse:
    """A response of a stream with an event, Triton's error message, or bytes in the RESPONSE tensor."""
    if isinstance(event, str):
        return service_pb2.ModelStreamInferResponse(error_message=event)
    element = event if isinstance(event, bytes) else event.SerializeToString()
    return service_pb2.ModelStreamInferResponse(infer_response=infer_response(element))


def serve(
    fake: FakeServer, credentials: grpc.ServerCredentials | None = None, port: int = 0, **options: int
) -> grpc.Server:
    """Start a gRPC server for the fake on a port of loopback, 0 for a free one, with gRPC options. Sets its url."""
    arguments = [(f"grpc.{name}", value) for name, value in options.items()]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), options=arguments)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(fake, server)
    if credentials is None:
        port = server.add_insecure_port(f"127.0.0.1:{port}")
    else:
        port = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    fake.url = f"127.0.0.1:{port}"
    server.start()
    return server


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    running = serve(fake)
    yield fake
    fake.released.set()
    running.stop(grace=None).wait(WAIT_SECONDS)


@pytest.fixture(params=[Client, AsyncClient])
def client_type(request) -> type[Client] | type[AsyncClient]:
    """Runs each test that uses it with both clients."""
    return request.param


async def settled(outcome: Any) -> Any:
    """The result of a method of either client, awaited if necessary."""
    return await outcome if inspect.isawaitable(outcome) else outcome


Action = Callable[[Any], Any | Awaitable[Any]]


@pytest.fixture
def use(server, client_type) -> Callable[..., Any]:
    """`use(lambda client: client.detect(...), **settings)`: call a client of the server."""

    def use(action: Action, **settings: Any) -> Any:
        async def connect_and_act() -> Any:
            client = client_type(server.url, **{"timeout": WAIT_SECONDS, **settings})
            try:
                return await settled(action(client))
            finally:
                await settled(client.close())

        return asyncio.run(connect_and_act())

    return use


@pytest.fixture
def two_servers():
    fakes = [FakeServer(), FakeServer()]
    running = [serve(fake) for fake in fakes]
    yield fakes
    for fake, server in zip(fakes, running, strict=True):
        fake.released.set()
        server.stop(grace=None).wait(WAIT_SECONDS)


@pytest.fixture
def send_to(client_type):
    """`send_to(urls, times, **settings)`: send requests with one client, one after another."""

    def send_to(urls, times=1, **settings):
        async def act():
            client = client_type(urls, **{"timeout": WAIT_SECONDS, "retry": QUICK, **settings})
            try:
                for _ in range(times):
                    await settled(client.detect(b"an image"))
            finally:
                await settled(client.close())

        asyncio.run(act())

    return send_to
