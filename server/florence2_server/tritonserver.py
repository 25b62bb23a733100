"""Serve this model repository with the tritonserver found on this machine.

`python model_repository/serve.py` runs it in the foreground until Ctrl-C. `TritonServer` is the same for programs: the
demo and the tests start their servers with it. `serve.py check`, `convert` and `fetch` inspect, convert and
download a checkpoint.

Two installations are known: NVIDIA's container (/opt/tritonserver), and the one inside the `nvidia-pytriton` wheel,
which is a whole tritonserver with its Python backend and needs no Docker.
"""

import argparse
import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, NoReturn

REPOSITORY = Path(__file__).resolve().parent
CONTAINER_INSTALLATION = Path("/opt/tritonserver")
CHECKPOINT_COMMANDS = ("check", "convert", "fetch")
STOP_SECONDS = 30.0
READY_POLL_SECONDS = 0.1
# glibc gives threads arenas of their own, eight times as many as there are cores, and each keeps what was once freed in
# it: under damaged images of all sizes the engine's memory grew by a fifth that way, and does not with two of them.
_FEW_ARENAS = {"MALLOC_ARENA_MAX": "2"}
# Of shared memory between tritonserver and each stub. It grows when it is too small, by a mebibyte at a time, and each
# time the whole is mapped once more beside the old mappings: that is memory which counts, and is never given back.
_SHARED_MEMORY_BYTES = 16 << 20


class ServerError(Exception):
    """The server cannot be found, or ended before it was ready."""


@dataclass(frozen=True)
class Ports:
    """TCP ports of one server."""

    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002

    @classmethod
    def free(cls) -> "Ports":
        """Three ports that nobody uses right now."""
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            return cls(*(each.getsockname()[1] for each in sockets))


@dataclass(frozen=True)
class Installation:
    """A tritonserver on this machine.

    Attributes:
        home: folder with bin/ and backends/.
        libraries: folders its dynamic linker has to look in.
    """

    home: Path
    libraries: tuple[Path, ...] = ()

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """`base`, with the libraries found and this interpreter's packages the first to be found by the stub.

        The stub is linked against libpython by name alone: without this interpreter's folder it takes the system's.
        """
        folders = [*map(os.fspath, self.libraries), base.get("LD_LIBRARY_PATH"), sysconfig.get_config_var("LIBDIR")]
        libraries = os.pathsep.join(filter(None, folders))
        path = os.pathsep.join([os.fspath(Path(sys.executable).parent), base.get("PATH", os.defpath)])
        return {**_FEW_ARENAS, **base, "LD_LIBRARY_PATH": libraries, "PATH": path}


def find_installation(scratch: Path) -> Installation:
    """The tritonserver of this machine.

    Args:
        scratch: a folder to lay out the wheel's server in.

    Raises:
        ServerError: there is none.
    """
    if (CONTAINER_INSTALLATION / "bin" / "tritonserver").exists():
        return Installation(CONTAINER_INSTALLATION)
    package = importlib.util.find_spec("pytriton")
    if package is None or package.origin is None:
        raise ServerError(f"no tritonserver: neither {CONTAINER_INSTALLATION} nor the nvidia-pytriton package is here")
    return _lay_out_wheel(Path(package.origin).parent, scratch)


def _lay_out_wheel(package: Path, scratch: Path) -> Installation:
    """The wheel keeps a Python stub for each version of Python apart from the backend; Triton wants it beside it."""
    home = package / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    backend = scratch / "backends" / "python"
    backend.mkdir(parents=True)
    for file in (home / "backends" / "python").iterdir():
        (backend / file.name).symlink_to(file)
    stub = "triton_python_backend_stub"
    (backend / stub).symlink_to(home / "python_backend_stubs" / version / stub)
    (scratch / "bin").symlink_to(home / "bin")
    return Installation(scratch, libraries=(package.parent / "nvidia_pytriton.libs",))


class TritonServer:
    """A tritonserver process that serves this repository; a context manager that starts and stops it.

    Args:
        ports: where it listens; on the loopback interface only unless `host` says otherwise.
        environment: added to this process's environment, e.g. `{"FLORENCE2_SLOTS": "4"}`.
        log: where its output goes; None: to ours.
        host: the address it listens on.
        models: folders of the models it serves.
        flags: more of tritonserver's; they win over those that it has anyway.
    """

    def __init__(
        self,
        ports: Ports | None = None,
        environment: Mapping[str, str] | None = None,
        log: IO[bytes] | None = None,
        host: str = "127.0.0.1",
        models: Sequence[Path] = (REPOSITORY / "florence2", REPOSITORY / "florence2_health"),
        flags: Sequence[str] = (),
    ) -> None:
        self.ports = ports or Ports.free()
        self.host = host
        self._environment = {**os.environ, **(environment or {})}
        self._log = log
        self._models = models
        self._extra_flags = flags
        self._scratch = tempfile.TemporaryDirectory(prefix="florence2-triton-")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process_id(self) -> int:
        """The server's process id."""
        return self._running().pid

    @property
    def grpc_url(self) -> str:
        """`host:port` of gRPC."""
        return f"{self.host}:{self.ports.grpc}"

    @property
    def http_url(self) -> str:
        """The base URL of HTTP."""
        return f"http://{self.host}:{self.ports.http}"

    def start(self) -> None:
        """Start the process; it is not ready yet."""
        command, environment = self._command()
        self._process = subprocess.Popen(
            command, env=environment, stdout=self._log, stderr=subprocess.STDOUT if self._log else None
        )

    def become(self) -> NoReturn:
        """Turn this process into the server. What was laid out for it stays behind when it ends."""
        command, environment = self._command()
        os.execve(command[0], command, environment)  # noqa: S606 - no shell is the point

    def is_ready(self) -> bool:
        """Whether every model can answer.

        Raises:
            ServerError: the process has ended.
        """
        status = self._running().poll()
        if status is not None:
            raise ServerError(f"tritonserver ended with exit status {status} before it was ready; its log says why")
        try:
            with urllib.request.urlopen(f"{self.http_url}/v2/health/ready", timeout=5) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def wait_until_ready(self, timeout: float) -> None:
        """Wait until every model can answer, at most `timeout` seconds.

        Raises:
            ServerError: the process has ended, or is not ready in time.
        """
        deadline = time.monotonic() + timeout
        while not self.is_ready():
            if time.monotonic() > deadline:
                raise ServerError(f"tritonserver is not ready after {timeout:.0f} s; its log says why")
            time.sleep(READY_POLL_SECONDS)

    def wait(self) -> int:
        """Wait for the process to end. Returns its exit status."""
        return self._running().wait()

    def stop(self) -> None:
        """Let it end what it is working on, then stop it and remove what it left."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._scratch.cleanup()

    def __enter__(self) -> "TritonServer":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise ServerError("the server was not started")
        return self._process

    def _command(self) -> tuple[list[str], dict[str, str]]:
        """Lay out what the server needs. Returns its command line and its environment."""
        scratch = Path(self._scratch.name)
        installation = find_installation(scratch)
        # Triton takes every folder of a repository for a model, also a __pycache__ beside this file.
        (scratch / "models").mkdir()
        for model in self._models:
            (scratch / "models" / model.name).symlink_to(model)
        command = [os.fspath(installation.home / "bin" / "tritonserver"), *self._flags(installation)]
        return command, installation.environment(self._environment)

    def _flags(self, installation: Installation) -> list[str]:
        flags = [
            f"--model-repository={Path(self._scratch.name) / 'models'}",
            f"--backend-directory={installation.home / 'backends'}",
            "--model-control-mode=none",
            "--strict-readiness=true",
            "--disable-auto-complete-config",
            *(f"--{protocol}-address={self.host}" for protocol in ("http", "grpc", "metrics")),
            f"--http-port={self.ports.http}",
            f"--grpc-port={self.ports.grpc}",
            f"--metrics-port={self.ports.metrics}",
            f"--exit-timeout-secs={STOP_SECONDS / 2:.0f}",
            f"--backend-config=python,shm-default-byte-size={_SHARED_MEMORY_BYTES}",
            # The caller's trace context reaches the log of requests.
            "--grpc-header-forward-pattern=traceparent",
        ]
        return [*flags, *([] if has_gpu() else ["--model-config-name=cpu"]), *self._extra_flags]


def has_gpu() -> bool:
    """Whether an NVIDIA GPU is visible."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def main() -> None:
    """Serve, or run one of the checkpoint commands."""
    command, *arguments = sys.argv[1:] or ["serve"]
    if command in CHECKPOINT_COMMANDS:
        become_checkpoint_command([command, *arguments])
    serve(arguments if command == "serve" else sys.argv[1:])


def become_checkpoint_command(arguments: Sequence[str]) -> NoReturn:
    """Replace this process with the engine's command of that name, which needs packages that this file does without."""
    path = os.pathsep.join(filter(None, [os.fspath(REPOSITORY / "florence2" / "1"), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "florence2_engine.checkpoint", *arguments]
    os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": path})  # noqa: S606 - no shell is the point


def serve(arguments: Sequence[str]) -> None:
    """Serve in the foreground until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(
        description="Serve Florence-2. FLORENCE2_CHECKPOINT chooses the weights.",
        epilog="Commands: check CHECKPOINT, convert CHECKPOINT FOLDER, fetch CHECKPOINT FOLDER; each has --help.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    for name, port in (("http", Ports.http), ("grpc", Ports.grpc), ("metrics", Ports.metrics)):
        parser.add_argument(f"--{name}-port", type=int, default=port, help=f"default {port}")
    options = parser.parse_args(arguments)
    ports = Ports(options.http_port, options.grpc_port, options.metrics_port)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts us in the background ignores it
    try:
        with TritonServer(ports, host=options.host) as server, contextlib.suppress(KeyboardInterrupt):
            sys.exit(server.wait())
    except ServerError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
