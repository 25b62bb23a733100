"""The command `florence2 server`: what servers serve."""

from dataclasses import asdict

from florence2.cli.connecting import connected
from florence2.cli.exits import SUCCEEDED, CommandError, status_of
from florence2.cli.option_groups import ServerOptions
from florence2.cli.printing import print_json, print_records
from florence2.cli.tables import Section
from florence2.errors import Florence2Error
from florence2.transports import EngineInfo, ServerInfo

_HEADER = ["server", "model", "engine", "state", "checkpoint", "layout", "device", "dtype", "slots", "adapters"]


def server(options: ServerOptions, is_json: bool) -> int:
    """Print a row for each engine of each server, or a line of JSON for each server.

    Raises:
        CommandError: a server does not respond, or does not report what it serves.
    """
    with connected(options) as client:
        try:
            infos = client.server_info(timeout=options.timeout)
        except Florence2Error as error:
            raise CommandError(f"{error.url}: {error}" if error.url else str(error), status_of(error)) from error
    if is_json:
        for info in infos:
            print_json(asdict(info))
    else:
        print_records(Section(header=_HEADER, rows=[_row(info, engine) for info in infos for engine in info.engines]))
    return SUCCEEDED


def _row(info: ServerInfo, engine: EngineInfo) -> list[str]:
    revision = f"@{engine.revision}" if engine.revision else ""
    return [
        info.url,
        info.model,
        engine.name,
        engine.state,
        f"{engine.checkpoint}{revision}",
        engine.layout,
        engine.device,
        engine.dtype,
        str(engine.slots),
        " ".join(engine.adapters),
    ]
