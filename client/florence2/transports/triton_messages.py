"""The messages of KServe's inference protocol v2: requests with an IMAGE and a REQUEST tensor, and what comes back."""

# tritonclient comes without types.
# mypy: disable-error-code="no-untyped-call"

import struct
from typing import Any

import numpy as np
import tritonclient.grpc
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from florence2 import v1
from florence2.errors import ServerError, error_of_status
from florence2.transports.protocol import RequestContext

_MICROSECONDS = 1_000_000


def infer_arguments(image: bytes, request: v1.TaskRequest, context: RequestContext) -> dict[str, Any]:
    """The arguments of tritonclient's `infer`, with the time that is left now."""
    image_tensor = tensor("IMAGE", [[image]])
    remaining = context.remaining()  # not before: copying a large image takes time
    return {
        "inputs": [image_tensor, tensor("REQUEST", [[_scheduled(request, context.priority, remaining)]])],
        "request_id": context.request_id,
        # Both are also in the TaskRequest. Older servers, whose requests wait in Triton's queue, know only these.
        "priority": context.priority,
        # Triton takes 0 for no limit.
        "timeout": None if remaining is None else _microseconds(remaining),
        "client_timeout": remaining,
    }


def stream_request(
    model: str, image: bytes, request: v1.TaskRequest, context: RequestContext, remaining: float | None
) -> Any:
    """The only request of a stream, with the time that is left: a `ModelInferRequest`."""
    tensors = {"IMAGE": image, "REQUEST": _scheduled(request, context.priority, remaining)}
    message: Any = service_pb2.ModelInferRequest(  # type: ignore[attr-defined]  # generated, without types
        model_name=model, id=context.request_id
    )
    for name, content in tensors.items():
        message.inputs.add(name=name, datatype="BYTES", shape=[1])  # streams have no batch dimension
        message.raw_input_contents.append(struct.pack("<I", len(content)) + content)
    if context.priority:
        message.parameters["priority"].uint64_param = context.priority
    if remaining is not None:
        message.parameters["timeout"].int64_param = _microseconds(remaining)
    return message


def stream_event(response: Any, timeout: float | None) -> v1.StreamEvent:
    """The event in a `ModelStreamInferResponse`.

    Raises:
        Florence2Error: the response, or the event in it, is an error. The request had `timeout` seconds.
    """
    if response.error_message:  # servers that do not know the header `triton_grpc_error` report no status
        raise error_of_status("", response.error_message, timeout)
    data = element(tritonclient.grpc.InferResult(response.infer_response), "RESPONSE")
    try:
        event = v1.StreamEvent.FromString(data)
    except DecodeError as error:
        raise ServerError(f"the response's {len(data)} bytes are not a StreamEvent") from error
    if event.HasField("error"):
        raise error_of_status(event.error.status, event.error.message, timeout)
    return event


def _scheduled(request: v1.TaskRequest, priority: int, remaining: float | None) -> bytes:
    """The request with its priority and the time that is left; it must not be changed itself."""
    scheduled = v1.TaskRequest()
    scheduled.CopyFrom(request)
    scheduled.priority = priority
    scheduled.timeout_seconds = remaining or 0
    return scheduled.SerializeToString()


def _microseconds(remaining: float) -> int:
    return max(1, round(remaining * _MICROSECONDS))


def tensor(name: str, values: list[Any]) -> Any:
    """An input tensor of type BYTES."""
    # Objects, because numpy's own bytes type drops trailing zeros.
    array = np.array(values, dtype=np.object_)
    return tritonclient.grpc.InferInput(name, array.shape, "BYTES").set_data_from_numpy(array)


def task_response(result: Any) -> v1.TaskResponse:
    """The response in a result of tritonclient."""
    data = element(result, "RESPONSE")
    try:
        response = v1.TaskResponse.FromString(data)
    except DecodeError as error:
        raise ServerError(f"the response's {len(data)} bytes are not a TaskResponse") from error
    return response


def element(result: Any, name: str) -> bytes:
    """The only element of a tensor in a result of tritonclient."""
    try:
        values = result.as_numpy(name)
    except (struct.error, TypeError, ValueError) as error:  # inconsistent lengths or shape
        raise ServerError(f"the {name} tensor cannot be read") from error
    if values is None or values.size != 1 or not isinstance(values.item(), bytes):
        raise ServerError(f"the response has no {name} tensor with one BYTES element")
    return bytes(values.item())
