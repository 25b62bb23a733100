"""A server that speaks KServe v2 on loopback, says what it is told to, and keeps what it was sent.

A test module takes its fixtures with `pytest_plugins = ["tests.client.fake_server"]`. PYTEST_DONT_REWRITE: by
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
from florence2 import v1
from florence2.client import AsyncClient, Client
from florence2.scores import TokenScores
from tritonclient.grpc import service_pb2, service_pb2_grpc

WAIT_SECONDS = 10.0
IMAGE_SIZE = (1000, 500)
STOP = v1.FinishReason.FINISH_REASON_STOP
LENGTH = v1.FinishReason.FINISH_REASON_LENGTH

Behaviour = Callable[[grpc.ServicerContext], service_pb2.ModelInferResponse]


@dataclass(frozen=True)
class Received:
    """One ModelInfer call as it came in."""

    message: service_pb2.ModelInferRequest
    metadata: dict[str, str]
    seconds_left: float | None

    @property
    def tensors(self) -> dict[str, tuple[str, list[int], bytes]]:
        """Datatype, shape and raw content by name."""
        contents = zip(self.message.inputs, self.message.raw_input_contents, strict=True)
        return {tensor.name: (tensor.datatype, list(tensor.shape), raw) for tensor, raw in contents}

    def element(self, name: str) -> bytes:
        """The one element of a BYTES tensor, which stands behind its length."""
        raw = self.tensors[name][2]
        assert struct.unpack_from("<I", raw)[0] == len(raw) - 4
        return raw[4:]

    @property
    def request(self) -> v1.TaskRequest:
        return v1.TaskRequest.FromString(self.element("REQUEST"))


class FakeServer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers every call with what `answer`, `respond`, `fail` or `hold` was told last."""

    def __init__(self) -> None:
        self.url = ""
        self.received: list[Received] = []
        self.ready = True
        self.engine_state: bytes | None = b"running"
        self.health_metadata: dict[str, str] = {}
        self.arrived = threading.Event()
        self.cancelled = threading.Event()
        self.released = threading.Event()
        self._behave: Behaviour = lambda _: infer_response(task_response("</s><s>nothing</s>"))

    def answer(self, text: str, finish_reason: v1.FinishReason = STOP) -> None:
        """Answer with a generated text."""
        self.respond(task_response(text, finish_reason))

    def respond(self, response: bytes | service_pb2.ModelInferResponse) -> None:
        """Answer with these bytes in the RESPONSE tensor, or with this whole message."""
        whole = infer_response(response) if isinstance(response, bytes) else response
        self._behave = lambda _: whole

    def fail(self, status: grpc.StatusCode, message: str) -> None:
        """Refuse every call, readiness included."""
        self._behave = lambda context: context.abort(status, message)

    def fail_first(self, times: int, status: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        """Refuse as many calls as that, then do as told before."""
        before, refusals = self._behave, iter(range(times))

        def refuse(context: grpc.ServicerContext) -> service_pb2.ModelInferResponse:
            if next(refusals, None) is not None:
                context.abort(status, "the queue is full")
            return before(context)

        self._behave = refuse

    def hold(self) -> None:
        """Answer nothing until the call is cancelled or the test is over."""

        def wait(context: grpc.ServicerContext) -> service_pb2.ModelInferResponse:
            context.add_callback(lambda: (self.cancelled.set(), self.released.set()))
            self.released.wait(WAIT_SECONDS)
            return service_pb2.ModelInferResponse()

        self._behave = wait

    def ModelInfer(self, request, context):  # noqa: N802  # gRPC's name
        if request.model_name == "florence2_health":
            if self.engine_state is None:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the stub is not healthy")
            self.health_metadata = dict(context.invocation_metadata())
            return infer_response(self.engine_state, "STATE")
        metadata = dict(context.invocation_metadata())
        self.received.append(Received(request, metadata, context.time_remaining()))
        self.arrived.set()
        return self._behave(context)

    def ServerLive(self, request, context):  # noqa: ARG002, N802  # gRPC's name
        return service_pb2.ServerLiveResponse(live=True)

    def ModelReady(self, request, context):  # noqa: N802  # gRPC's name
        assert request.name == "florence2"
        # What a refusing behaviour returns is not looked at: abort() raises.
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
    """A raw response, as the real server gives it."""
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


def serve(fake: FakeServer, credentials: grpc.ServerCredentials | None = None, **options: int) -> grpc.Server:
    """Start a server with gRPC's options for the fake on a free port of loopback, and tell the fake its address."""
    arguments = [(f"grpc.{name}", value) for name, value in options.items()]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), options=arguments)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(fake, server)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
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
    """Every test that asks for it is held against both clients."""
    return request.param


async def settled(outcome: Any) -> Any:
    """What a method of either client returns, awaited where it has to be."""
    return await outcome if inspect.isawaitable(outcome) else outcome


Action = Callable[[Any], Any | Awaitable[Any]]


@pytest.fixture
def ask(server, client_type) -> Callable[..., Any]:
    """`ask(lambda client: client.detect(...), **settings)`: do something with a client of the server."""

    def ask(action: Action, **settings: Any) -> Any:
        async def connect_and_act() -> Any:
            client = client_type(server.url, **{"timeout": WAIT_SECONDS, **settings})
            try:
                return await settled(action(client))
            finally:
                await settled(client.close())

        return asyncio.run(connect_and_act())

    return ask
