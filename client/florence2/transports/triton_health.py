"""Requests to the Triton model that reports the health of a served model, and its answers."""

from typing import Any

from florence2.errors import ServerError
from florence2.transports.destination import Destination
from florence2.transports.protocol import Health, ServerInfo, engine_state
from florence2.transports.server_info import read_server_info
from florence2.transports.tracing import current_trace_context
from florence2.transports.triton_messages import element, tensor


def health_arguments(destination: Destination) -> dict[str, Any]:
    """The arguments of tritonclient's `infer`."""
    return {
        "model_name": destination.health_model,
        "inputs": [tensor("ABOUT", [b"engine"])],
        "headers": destination.metadata(current_trace_context()),
    }


def read_health(result: Any, url: str, server_is_live: bool, model_is_ready: bool) -> Health:
    """The health in a result of tritonclient."""
    state = engine_state(element(result, "STATE").decode())
    info = read_info(result, url) if _has_info(result) else None
    return Health(url, server_is_live, model_is_ready, state, info=info)


def read_info(result: Any, url: str) -> ServerInfo:
    """What is served, in a result of tritonclient.

    Raises:
        ServerError: the server does not report it.
    """
    if not _has_info(result):
        raise ServerError("the server does not report what it serves; it is older than this client")
    return read_server_info(url, element(result, "INFO"))


def _has_info(result: Any) -> bool:
    return result.get_output("INFO") is not None
