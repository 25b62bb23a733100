"""`florence2-server adapters`: lists, loads and unloads adapters (LoRA) of a server that runs on this machine.

The server is reached through the folder of its private sockets, which only its own user can open. Imports no torch.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import grpc
from florence2.adapter_names import ADAPTER_NAME_RULE, is_adapter_name

from florence2_server.adapter_settings import is_folder, parse_pair
from florence2_server.errors import ConfigError
from florence2_server.stub.running_servers import admin_sockets, server_folder
from florence2_server.v1.state_pb2 import (
    ListAdaptersRequest,
    ListedAdapter,
    LoadAdapterRequest,
    UnloadAdapterRequest,
)
from florence2_server.v1.state_pb2_grpc import AdapterServiceStub

_SECONDS = 10.0
_CHANGE_SECONDS = 1800.0  # a download included; a change waits for the one before it
_HEADER = ("NAME", "RANK", "BYTES", "ORIGIN", "SOURCE")

_Response = TypeVar("_Response")


def main(arguments: Sequence[str]) -> int:
    """Run a command, and return its exit status. An error is one line."""
    options = _parser().parse_args(arguments)
    try:
        sockets = admin_sockets(server_folder(options.tritonserver), options.model)
        if options.command == "list":
            _list(sockets)
        elif options.command == "load":
            _load(sockets, *parse_pair(options.adapter))
        else:
            _unload(sockets, options.name)
    except (ConfigError, _CommandError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201 - a command's output
        return 1
    return 0


class _CommandError(Exception):
    """An engine has not carried out a command. The message says which engine and why."""

    def __init__(self, message: str, status: grpc.StatusCode) -> None:
        super().__init__(message)
        self.status = status


def _list(sockets: Mapping[str, Path]) -> None:
    """Print a table of the adapters; those of all engines if these differ."""
    lists = {engine: _listed(engine, socket) for engine, socket in sockets.items()}
    tables = {engine: [_row(adapter) for adapter in adapters] for engine, adapters in lists.items()}
    are_alike = all(table == next(iter(tables.values())) for table in tables.values())
    for engine in list(tables)[:1] if are_alike else tables:
        if not are_alike:
            print(f"engine {engine}:")  # noqa: T201 - a command's output
        _print_table([_HEADER, *tables[engine]])


def _load(sockets: Mapping[str, Path], name: str, source: str) -> None:
    """Load an adapter into all engines. If one cannot load it, those before it have what they had."""
    source = os.fspath(Path(source).resolve()) if is_folder(source) else source
    former: dict[str, str | None] = {}
    for engine, socket in sockets.items():
        listed = {each.name: each.source for each in _listed(engine, socket)}
        try:
            adapter = _load_into(engine, socket, name, source)
        except _CommandError:
            for each, before in former.items():
                if before is None:
                    _unload({each: sockets[each]}, name)
                else:
                    _load_into(each, sockets[each], name, before)
            raise
        former[engine] = listed.get(name)
    print(f"{name} is served: rank {adapter.rank}, {adapter.bytes} bytes")  # noqa: T201 - a command's output


def _load_into(engine: str, socket: Path, name: str, source: str) -> ListedAdapter:
    request = LoadAdapterRequest(name=name, source=source)
    response = _call(engine, socket, lambda stub: stub.LoadAdapter(request, timeout=_CHANGE_SECONDS))
    adapter: ListedAdapter = response.adapter
    return adapter


def _listed(engine: str, socket: Path) -> Sequence[ListedAdapter]:
    response = _call(engine, socket, lambda stub: stub.ListAdapters(ListAdaptersRequest(), timeout=_SECONDS))
    adapters: Sequence[ListedAdapter] = response.adapters
    return adapters


def _unload(sockets: Mapping[str, Path], name: str) -> None:
    """Unload an adapter from all engines that have it."""
    if not is_adapter_name(name):
        raise ConfigError(f"name: got {name!r}, expected {ADAPTER_NAME_RULE}")
    request, missing = UnloadAdapterRequest(name=name), 0
    for engine, socket in sockets.items():
        try:
            _call(engine, socket, lambda stub: stub.UnloadAdapter(request, timeout=_CHANGE_SECONDS))
        except _CommandError as error:
            missing += 1
            if error.status is not grpc.StatusCode.NOT_FOUND or missing == len(sockets):
                raise


def _call(engine: str, socket: Path, call: Callable[[AdapterServiceStub], _Response]) -> _Response:
    """Call the stub of an engine.

    Raises:
        _CommandError: it reports an error, or does not respond.
    """
    with _connection(socket) as stub:
        try:
            return call(stub)
        except grpc.RpcError as error:
            raise _CommandError(f"engine {engine}: {error.details()}", error.code()) from None


@contextmanager
def _connection(socket: Path) -> Iterator[AdapterServiceStub]:
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        yield AdapterServiceStub(channel)


def _row(adapter: ListedAdapter) -> tuple[str, ...]:
    if adapter.served:
        note = f" (as it was before: {adapter.error})" if adapter.error else ""
        return adapter.name, str(adapter.rank), str(adapter.bytes), adapter.origin, f"{adapter.source}{note}"
    reason = adapter.error or "not loaded yet"
    return adapter.name, "-", "-", adapter.origin, f"{adapter.source} (not served: {reason})"


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(line.rstrip())  # noqa: T201 - a command's output


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="florence2-server adapters",
        description="List, load and unload the adapters (LoRA) of a server on this machine, as the server's own user. "
        "What is loaded here stays until it is unloaded or the server stops; FLORENCE2_ADAPTERS lasts longer.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--model", help="the name of the served model; needed if there are several")
    common.add_argument(
        "--tritonserver", type=int, metavar="PID", help="process id of the tritonserver; needed if several run"
    )
    commands.add_parser("list", parents=[common], help="print the adapters that are to be served, and the errors")
    load = commands.add_parser("load", parents=[common], help="serve an adapter in all engines of the model")
    load.add_argument("adapter", metavar="NAME=FOLDER", help="the name for requests; a folder, or an id on the hub")
    unload = commands.add_parser("unload", parents=[common], help="stop serving an adapter that was loaded")
    unload.add_argument("name", metavar="NAME")
    return parser
