"""How requests reach a model: the interface between the clients and whatever runs Florence-2.

A `Transport` takes an encoded image and a checked request, and returns the response. `florence2.transports.triton`
sends requests to Triton servers, `florence2.testing.MockTransport` calls a function, and `load_transport` finds the
transports of other installed packages, such as the server's own, which runs the model in this process:

    in_process = load_transport("in_process")
    transport = in_process("microsoft/Florence-2-base")
    with florence2.Client(transport=transport) as client:
        print(client.caption("street.jpg").text)
"""

from florence2.transports.entry_points import TransportNotFoundError, load_transport
from florence2.transports.protocol import (
    AsyncServerInfoTransport,
    AsyncStreamingTransport,
    AsyncTransport,
    Cancellation,
    EngineInfo,
    EngineState,
    Health,
    Reply,
    RequestContext,
    ServerInfo,
    ServerInfoTransport,
    StreamingTransport,
    StreamReply,
    Transport,
)

__all__ = [
    "AsyncServerInfoTransport",
    "AsyncStreamingTransport",
    "AsyncTransport",
    "Cancellation",
    "EngineInfo",
    "EngineState",
    "Health",
    "Reply",
    "RequestContext",
    "ServerInfo",
    "ServerInfoTransport",
    "StreamReply",
    "StreamingTransport",
    "Transport",
    "TransportNotFoundError",
    "load_transport",
]
