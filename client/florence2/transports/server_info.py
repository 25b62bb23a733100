"""What a server serves, as its model for health reports it."""

from google.protobuf.json_format import Parse, ParseError

from florence2 import v1
from florence2.errors import ServerError
from florence2.transports.protocol import EngineInfo, ServerInfo, engine_state


def read_server_info(url: str, text: str | bytes) -> ServerInfo:
    """Read the output INFO.

    Args:
        url: the server's address.
        text: a `florence2.v1.ServerInfo` in proto3 JSON. Fields of newer servers, unknown here, are ignored.

    Raises:
        ServerError: it is something else.
    """
    try:
        message = Parse(text, v1.ServerInfo(), ignore_unknown_fields=True)
    except ParseError as error:
        raise ServerError(f"the server's INFO cannot be read: {error}") from error
    return server_info_of(url, message)


def server_info_of(url: str, message: v1.ServerInfo) -> ServerInfo:
    """The information in a message of the server at `url`."""
    return ServerInfo(url, message.version, message.model, tuple(map(_engine_info, message.engines)))


def _engine_info(engine: v1.EngineInfo) -> EngineInfo:
    return EngineInfo(
        name=engine.name,
        state=engine_state(engine.state),
        checkpoint=engine.checkpoint,
        revision=engine.revision,
        layout=engine.layout,
        device=engine.device,
        dtype=engine.dtype,
        slots=engine.slots,
        adapters=tuple(engine.adapters),
    )
