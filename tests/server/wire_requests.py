"""Requests as they are on the wire, for who sends many, or wrong ones that a client library would not."""

import struct

from tritonclient.grpc import service_pb2

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
_LENGTH = struct.Struct("<I")  # of an element, in front of it


def element(data: bytes) -> bytes:
    """An element of a BYTES tensor."""
    return _LENGTH.pack(len(data)) + data


def only_element(content: bytes) -> bytes:
    """The element of a BYTES tensor that has one."""
    return content[_LENGTH.size :]


def infer_request(image: bytes, request: bytes, priority: int = 0) -> service_pb2.ModelInferRequest:
    """A question; priority 0 is Triton's word for the default."""
    message = service_pb2.ModelInferRequest(model_name="florence2")
    message.parameters["priority"].uint64_param = priority
    for name, data in (("IMAGE", image), ("REQUEST", request)):
        add_tensor(message, name, [1, 1], "BYTES", element(data))
    return message


def add_tensor(
    message: service_pb2.ModelInferRequest, name: str, shape: list[int], datatype: str, content: bytes
) -> None:
    """An input more, whether it makes sense or not."""
    message.inputs.add(name=name, shape=shape, datatype=datatype)
    message.raw_input_contents.append(content)
