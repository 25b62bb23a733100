"""Starting the servers that are measured: the same tritonserver binary with different models."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from florence2_server.repository import REPOSITORY
from florence2_server.tritonserver import TritonServer

from benchmarks.harness.callers import Caller, OurCaller

# Requests that a server works on at once, at most: our slots, and the conventional server's largest batch.
SERVED_AT_ONCE = 16
_READY_SECONDS = 300.0


@dataclass(frozen=True)
class Side:
    """A server that is measured.

    Attributes:
        name: in tables and results.
        model: the folder of its Triton model.
        prefix: of the environment variables that name its checkpoint and data type.
        connect: opens a connection to `host:port`.
    """

    name: str
    model: Path
    prefix: str
    connect: Callable[[str], Caller]


OURS = Side("ours", REPOSITORY / "florence2", "FLORENCE2", OurCaller)


@contextmanager
def running(
    side: Side,
    checkpoint: Path,
    logs: Path,
    dtype: str,
    extra_models: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[TritonServer]:
    """Start a server, wait until it is ready, and stop it on exit.

    Args:
        side: the server.
        checkpoint: folder of the weights to serve.
        logs: folder for its log.
        dtype: data type to compute in.
        extra_models: folders of further models to serve.
        environment: further environment variables, e.g. `{"FLORENCE2_SLOTS": "4"}`.
    """
    logs.mkdir(parents=True, exist_ok=True)
    settings = {f"{side.prefix}_CHECKPOINT": os.fspath(checkpoint.resolve()), f"{side.prefix}_DTYPE": dtype}
    with (
        (logs / f"{side.name}-{checkpoint.name}.log").open("wb") as log,
        TritonServer(
            environment={**settings, **(environment or {})}, log=log, models=(), folders=[side.model, *extra_models]
        ) as server,
    ):
        server.wait_until_ready(_READY_SECONDS)
        yield server
