"""`python -m florence2_server.engine --socket PATH --config JSON --parent PID`: an engine process, started by the stub.

The first line on standard output is `ready` and an EngineInfo as JSON, or `error:` and why the engine cannot start.
Logs and progress go to standard error. The process ends when its standard input does, or with its parent. It
ignores SIGTERM and SIGINT: they may reach all processes of a server, which answers the requests in flight first.
"""

import argparse
import ctypes
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import TextIO, TypeAlias

from google.protobuf import json_format

from florence2_server.config import EngineConfig
from florence2_server.engine.build import BuiltEngine, build
from florence2_server.engine.errors import CheckpointError
from florence2_server.engine.service import EngineService, serve
from florence2_server.log_format import set_up_logging

Build: TypeAlias = Callable[[EngineConfig], BuiltEngine]

_STOP_GRACE_SECONDS = 1.0
# Where cores are few, tritonserver and its stub have to get one before the engine's threads do, which are busy all the
# time: in overload, refusals took a second instead of milliseconds.
_NICENESS = 10
_PR_SET_PDEATHSIG = 1


def main(build: Build = build) -> None:
    """Load the checkpoint, serve until standard input is closed, and exit.

    Args:
        build: makes the engine; programs that wrap the engine pass their own.
    """
    arguments = _arguments()
    report = _take_standard_output()
    os.nice(_NICENESS)
    _exit_with_parent(arguments.parent)
    _set_up_logging()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    config = EngineConfig.from_json(arguments.config)
    built = _build_or_exit(build, config, report)
    built.engine.start()
    # Twice as many as the stub submits at once: for heartbeats, and for cancelled ones whose images are being decoded.
    max_concurrent_rpcs = 2 * (config.slots + config.ahead)
    server = serve(EngineService(built.engine, built.preparation), arguments.socket, max_concurrent_rpcs)
    report.write(f"ready {json_format.MessageToJson(built.info, indent=None)}\n")
    while os.read(sys.stdin.fileno(), 1):
        pass
    built.engine.close()
    server.stop(_STOP_GRACE_SECONDS).wait()
    logging.shutdown()
    os._exit(0)  # the finalizers of Python and torch take more than a second and achieve nothing here


def _build_or_exit(build: Build, config: EngineConfig, report: TextIO) -> BuiltEngine:
    try:
        return build(config)
    except CheckpointError as error:
        report.write(f"error: {error}\n")
    except Exception as error:
        logging.exception("the engine cannot start")
        report.write(f"error: {' '.join(f'{type(error).__name__}: {error}'.split())}\n")
    sys.exit(1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="florence2_server.engine", description=__doc__)
    parser.add_argument("--socket", required=True, help="path of the unix socket to serve on")
    parser.add_argument("--config", required=True, help="an EngineConfig as JSON")
    parser.add_argument("--parent", type=int, required=True, help="id of the process with which this one has to end")
    return parser.parse_args()


def _take_standard_output() -> TextIO:
    """The pipe to the stub, reserved for reports: what libraries print goes to standard error from now on."""
    report = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return report


def _exit_with_parent(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before the call
        sys.exit(1)


def _set_up_logging() -> None:
    set_up_logging()
    for name in ("httpx", "httpx2"):  # the hub client's HTTP library logs a line for each file
        logging.getLogger(name).setLevel(logging.WARNING)
    # Callers learn from their errors what is wrong with an image. Python keeps every distinct warning forever.
    warnings.filterwarnings("ignore", module="PIL")


if __name__ == "__main__":
    main()
