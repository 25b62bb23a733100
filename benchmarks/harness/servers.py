"""The servers that are measured: one tritonserver binary, other model repositories."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from serve import REPOSITORY, TritonServer

_HERE = Path(__file__).resolve().parent
OURS = REPOSITORY / "florence2"
CONVENTIONAL = _HERE / "conventional" / "florence2_conventional"
EMPTY = _HERE / "empty" / "empty"
_READY_SECONDS = 300.0


@contextmanager
def running(
    name: str, checkpoint: Path, logs: Path, dtype: str, extra_models: Sequence[Path] = ()
) -> Iterator[TritonServer]:
    """A server that is ready; stopped at the end, whatever happens.

    Args:
        name: `ours` or `conventional`.
        checkpoint: what it serves.
        logs: folder for its log.
        dtype: what it computes in.
        extra_models: served beside it.
    """
    prefix, model = {"ours": ("FLORENCE2", OURS), "conventional": ("CONVENTIONAL", CONVENTIONAL)}[name]
    logs.mkdir(parents=True, exist_ok=True)
    environment = {f"{prefix}_CHECKPOINT": os.fspath(checkpoint.resolve()), f"{prefix}_DTYPE": dtype}
    with (
        (logs / f"{name}-{checkpoint.name}.log").open("wb") as log,
        TritonServer(environment=environment, log=log, models=[model, *extra_models]) as server,
    ):
        server.wait_until_ready(_READY_SECONDS)
        yield server
