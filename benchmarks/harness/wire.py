"""Requests in the form in which they travel, so that their bytes can be counted."""

import struct
from dataclasses import dataclass
from typing import Any

import grpc
from florence2.v1 import TaskRequest, TaskResponse
from tritonclient.grpc import service_pb2, service_pb2_grpc

_LENGTH = struct.Struct("<I")  # the length that precedes an element of a BYTES tensor
_TIMEOUT_SECONDS = 900.0
_UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


@dataclass(frozen=True)
class Exchanged:
    """A request, answered.

    Attributes:
        sent: bytes of the request's message.
        received: bytes of the response's message.
    """

    response: TaskResponse
    sent: int
    received: int


class WireCaller:
    """A gRPC connection to our server. Thread-safe."""

    def __init__(self, url: str) -> None:
        self._channel = grpc.insecure_channel(url, _UNLIMITED)
        self._stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def send(self, image: bytes, request: TaskRequest) -> Exchanged:
        """Send a request and wait for its response."""
        message = _infer_request(image, request.SerializeToString())
        reply = self._stub.ModelInfer(message, timeout=_TIMEOUT_SECONDS)
        response = TaskResponse.FromString(reply.raw_output_contents[0][_LENGTH.size :])
        return Exchanged(response, message.ByteSize(), reply.ByteSize())

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


def _infer_request(image: bytes, request: bytes) -> Any:
    message: Any = service_pb2.ModelInferRequest(model_name="florence2")  # type: ignore[attr-defined]
    for name, data in (("IMAGE", image), ("REQUEST", request)):
        message.inputs.add(name=name, shape=[1, 1], datatype="BYTES")
        message.raw_input_contents.append(_LENGTH.pack(len(data)) + data)
    return message
