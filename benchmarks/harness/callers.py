"""Sending a request to a server and reading its response, one class per interface."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tritonclient.grpc
from florence2.v1 import TaskResponse

from benchmarks.harness.requests import Request

# Far longer than any answer takes; a server that exceeds it hangs.
_TIMEOUT_SECONDS = 900.0


@dataclass(frozen=True)
class Response:
    """A server's response.

    Attributes:
        text: with special tokens.
        decode_seconds: decoding time as the server reports it; None if it reports none.
        embedding_was_cached: whether the server reports that the image was not encoded again.
    """

    text: str
    decode_seconds: float | None = None
    embedding_was_cached: bool = False


class Caller(Protocol):
    """A connection to a server; safe to share among threads."""

    def send(self, request: Request, num_beams: int) -> Response:
        """Send a request and wait for its response."""

    def close(self) -> None:
        """Close the connection."""


class TritonCaller:
    """A gRPC connection to a tritonserver."""

    def __init__(self, url: str) -> None:
        self._client: Any = tritonclient.grpc.InferenceServerClient(url)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def infer(self, model: str, inputs: list[Any], output: str) -> bytes:
        """Run a model and return the only element of one output tensor."""
        result = self._client.infer(model, inputs, client_timeout=_TIMEOUT_SECONDS)
        return bytes(result.as_numpy(output).item())


class OurCaller(TritonCaller):
    """A connection to our server."""

    def send(self, request: Request, num_beams: int) -> Response:
        """Send a request and wait for its response."""
        task_request = request.to_task_request(num_beams).SerializeToString()
        inputs = [tensor("IMAGE", request.image, "BYTES"), tensor("REQUEST", task_request, "BYTES")]
        response = TaskResponse.FromString(self.infer("florence2", inputs, "RESPONSE"))
        usage = response.usage
        return Response(response.text, usage.decode_milliseconds / 1000, usage.image_embedding_cached)


def tensor(name: str, value: object, datatype: str) -> Any:
    """An input tensor with a single element: shape [1, 1]."""
    array = np.array([[value]], dtype=np.object_ if datatype == "BYTES" else np.int32)
    return tritonclient.grpc.InferInput(name, [1, 1], datatype).set_data_from_numpy(array)
