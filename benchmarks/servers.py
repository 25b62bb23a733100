"""The servers that are measured: one tritonserver binary, other model repositories."""

import os
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from serve import REPOSITORY, TritonServer, find_installation

_HERE = Path(__file__).resolve().parent
OURS = REPOSITORY / "florence2"
CONVENTIONAL = _HERE / "conventional" / "florence2_conventional"
EMPTY = _HERE / "empty" / "empty"
_READY_SECONDS = 300.0


class ModelServer(TritonServer):
    """A tritonserver with models of our choice.

    Args:
        models: the models' folders.
        environment: added to this process's environment.
        log: where its output goes.
    """

    def __init__(self, models: Sequence[Path], environment: Mapping[str, str], log: IO[bytes]) -> None:
        super().__init__(environment={**_interpreter_libraries(), **environment}, log=log)
        self._models = models

    def start(self) -> None:
        """Start the process; it is not ready yet."""
        scratch = Path(self._scratch.name)
        installation = find_installation(scratch)
        (scratch / "models").mkdir()
        for model in self._models:
            (scratch / "models" / model.name).symlink_to(model)
        self._process = subprocess.Popen(
            [os.fspath(installation.home / "bin" / "tritonserver"), *self._flags(installation)],
            env=installation.environment(self._environment),
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )


def _interpreter_libraries() -> dict[str, str]:
    """Makes Triton's stub load this interpreter's libpython, not another of the same minor version.

    The conventional model imports transformers into the stub, and with it compiled modules of the standard library,
    which fit only the release that they were built for.
    """
    folders = [str(sysconfig.get_config_var("LIBDIR")), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {"LD_LIBRARY_PATH": os.pathsep.join(folders)}


@contextmanager
def running(name: str, checkpoint: Path, logs: Path, extra_models: Sequence[Path] = ()) -> Iterator[ModelServer]:
    """A server that is ready; stopped at the end, whatever happens.

    Args:
        name: `ours` or `conventional`.
        checkpoint: what it serves.
        logs: folder for its log.
        extra_models: served beside it.
    """
    variable, model = {
        "ours": ("FLORENCE2_CHECKPOINT", OURS),
        "conventional": ("CONVENTIONAL_CHECKPOINT", CONVENTIONAL),
    }[name]
    logs.mkdir(parents=True, exist_ok=True)
    environment = {variable: os.fspath(checkpoint.resolve())}
    with (
        (logs / f"{name}-{checkpoint.name}.log").open("wb") as log,
        ModelServer([model, *extra_models], environment, log) as server,
    ):
        server.wait_until_ready(_READY_SECONDS)
        yield server
