"""The engine's gRPC statuses as Triton's error codes."""

import grpc
import triton_python_backend_utils as pb_utils

# By name: the stub adds TritonError to pb_utils only after it has imported the model.
_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: "INVALID_ARG",
    grpc.StatusCode.UNAVAILABLE: "UNAVAILABLE",
    grpc.StatusCode.CANCELLED: "CANCELLED",
}


def triton_code(status: grpc.StatusCode) -> int:
    """Triton's code for an engine's status; INTERNAL for what is nobody's doing but ours."""
    code: int = getattr(pb_utils.TritonError, _CODES.get(status, "INTERNAL"))
    return code
