"""Requests in the form in which they travel, for tests that send many, or invalid ones that no client library sends."""

import struct

from tritonclient.grpc import service_pb2

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
_LENGTH = struct.Struct("<I")  # the length that precedes an element


def element(data: bytes) -> bytes:
    """Encode an element of a BYTES tensor."""
    return _LENGTH.pack(len(data)) + data


def only_element(content: bytes) -> bytes:
    """Decode a BYTES tensor with one element."""
    return content[_LENGTH.size :]


def infer_request(image: bytes, request: bytes, priority: int = 0) -> service_pb2.ModelInferRequest:
    """A request with one batch element; priority 0 is the model's default."""
    message = service_pb2.ModelInferRequest(model_name="florence2")
    message.parameters["priority"].uint64_param = priority
    for name, data in (("IMAGE", image), ("REQUEST", request)):
        add_tensor(message, name, [1, 1], "BYTES", element(data))
    return message


def add_tensor(
    message: service_pb2.ModelInferRequest, name: str, shape: list[int], datatype: str, content: bytes
) -> None:
    """Add an input tensor, valid or not."""
    message.inputs.add(name=name, shape=shape, datatype=datatype)
    message.raw_input_contents.append(content)
