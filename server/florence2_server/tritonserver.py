"""Runs tritonserver with this package's models.

It is found in one of two places: NVIDIA's container (/opt/tritonserver), or the `nvidia-pytriton` wheel, which contains
a complete tritonserver with its Python backend and needs no Docker.
"""

import ctypes
import http.client
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO

from florence2_server.addresses import Hosts
from florence2_server.addresses import Ports as Ports
from florence2_server.environment import START_ERROR_FILE
from florence2_server.repository import write_model
from florence2_server.served_model import ServedModel
from florence2_server.start_error import read_start_error

CONTAINER_INSTALLATION = Path("/opt/tritonserver")
STOP_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1
READY_POLL_SECONDS = 0.1
# glibc creates up to eight malloc arenas per core, and each keeps the memory that was freed in it: with damaged images
# of all sizes the engine's memory grew by a fifth. With two arenas it does not.
_FEW_ARENAS = {"MALLOC_ARENA_MAX": "2"}
# Freed blocks of a mebibyte and more return to the system. By default glibc raises this limit to the size of the
# largest freed block, and tritonserver's memory grew each time that its queue filled up with large images. The engine
# runs without this setting.
_LARGE_BLOCKS = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
# The initial size of the memory that tritonserver shares with each stub. If it is too small it grows, by a mebibyte at
# a time, and each time all of it is mapped again beside the old mappings, which count as memory and are never unmapped.
_SHARED_MEMORY_BYTES = 16 << 20
_LOG_FLAGS = (
    "--log-format=ISO8601",
    # Triton's information is tables and the names of its functions. The stubs say what is served.
    "--log-info=false",
    # No model takes tensors from pinned memory, and a machine without a GPU has none, which would be a warning.
    "--pinned-memory-pool-byte-size=0",
)


class StartError(Exception):
    """There is no tritonserver, its models cannot be found, or it ended before it was ready."""


@dataclass(frozen=True)
class Installation:
    """A tritonserver on this machine.

    Attributes:
        home: the folder with bin/ and backends/.
        libraries: additional folders for the dynamic linker.
    """

    home: Path
    libraries: tuple[Path, ...] = ()

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """The environment of the server: `base`, with the paths that its libraries and this interpreter need.

        Triton's Python stub is linked to libpython by name alone, and would load the system's if this interpreter's
        folder were not among the libraries.
        """
        folders = [*map(os.fspath, self.libraries), base.get("LD_LIBRARY_PATH"), sysconfig.get_config_var("LIBDIR")]
        libraries = os.pathsep.join(filter(None, folders))
        path = os.pathsep.join([os.fspath(Path(sys.executable).parent), base.get("PATH", os.defpath)])
        return {**_FEW_ARENAS, **_LARGE_BLOCKS, **base, "LD_LIBRARY_PATH": libraries, "PATH": path}


def find_installation(scratch: Path) -> Installation:
    """Find the tritonserver of this machine.

    Args:
        scratch: an empty folder, in which the wheel's server is laid out.

    Raises:
        StartError: there is no tritonserver.
    """
    if (CONTAINER_INSTALLATION / "bin" / "tritonserver").exists():
        return Installation(CONTAINER_INSTALLATION)
    package = importlib.util.find_spec("pytriton")
    if package is None or package.origin is None:
        raise StartError(f"no tritonserver: there is neither {CONTAINER_INSTALLATION} nor the nvidia-pytriton package")
    return _lay_out_wheel(Path(package.origin).parent, scratch)


def _lay_out_wheel(package: Path, scratch: Path) -> Installation:
    """Link the stub for this version of Python into the backend's folder, where Triton expects it."""
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
    """A tritonserver process; a context manager that starts and stops it.

    Args:
        ports: the ports to listen on; default: free ones.
        environment: added to this process's environment, e.g. `{"FLORENCE2_SLOTS": "4"}`.
        log: receives the output; default: that of this process.
        hosts: the addresses to listen on; default: the loopback interface.
        models: the served models; default: one, whose settings are those of the environment.
        folders: folders of further Triton models to serve.
        flags: further flags of tritonserver, which override the default ones.
        stop_seconds: how long `stop` waits for the process to end before it kills it.

    Attributes:
        ports: the ports it listens on.
        hosts: the addresses it listens on.
        process: the process; None before the start.
    """

    def __init__(
        self,
        ports: Ports | None = None,
        environment: Mapping[str, str] | None = None,
        log: IO[bytes] | None = None,
        hosts: Hosts | None = None,
        models: Sequence[ServedModel] = (ServedModel(),),
        folders: Sequence[Path] = (),
        flags: Sequence[str] = (),
        stop_seconds: float = STOP_SECONDS,
    ) -> None:
        self.ports = ports or Ports.free()
        self.hosts = hosts or Hosts.all_at("127.0.0.1")
        self.process: subprocess.Popen[bytes] | None = None
        self._environment = {**os.environ, **(environment or {})}
        self._log = log
        self._models = models
        self._folders = folders
        self._extra_flags = flags
        self._stop_seconds = stop_seconds
        self._scratch = tempfile.TemporaryDirectory(prefix="florence2-triton-")
        self._start_error_file = Path(self._scratch.name) / "start-error"

    @property
    def process_id(self) -> int:
        """The server's process id."""
        return self._running().pid

    @property
    def host(self) -> str:
        """How this machine reaches gRPC and the metrics page; an IPv6 address is in brackets."""
        return self.hosts.grpc.in_urls

    @property
    def grpc_url(self) -> str:
        """The address of gRPC, `host:port`."""
        return f"{self.host}:{self.ports.grpc}"

    @property
    def http_url(self) -> str:
        """The base URL of HTTP."""
        return f"http://{self.hosts.http.in_urls}:{self.ports.http}"

    @property
    def start_error(self) -> str | None:
        """Why a model cannot be loaded, in one line, as far as a stub has reported it."""
        return read_start_error(self._start_error_file)

    def start(self, stdout: int | None = None, *, ends_with_parent: bool = False) -> "subprocess.Popen[bytes]":
        """Start the process, without waiting until it is ready.

        Args:
            stdout: receives its standard output; default: as its standard error.
            ends_with_parent: send it SIGTERM when the calling thread ends, even by SIGKILL. Only for a process with a
                single thread.
        """
        command, environment = self._command()
        output = self._log if stdout is None else stdout
        prctl = ctypes.CDLL(None).prctl
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdout=output,
            stderr=self._log,
            preexec_fn=partial(prctl, _PR_SET_PDEATHSIG, signal.SIGTERM) if ends_with_parent else None,
        )
        return self.process

    def is_ready(self) -> bool:
        """Whether every model is ready, and the ports of HTTP, gRPC and the metrics page are open.

        Raises:
            StartError: the process has ended.
        """
        status = self._running().poll()
        if status is not None:
            raise StartError(self.start_error or f"{describe_end(status)} before it was ready; its log says why")
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(f"{self.http_url}/v2/health/ready", timeout=5) as response:
                return response.status == 200 and self._metrics_port_is_open()
        except (OSError, http.client.HTTPException):  # urllib's own errors are OSErrors
            return False

    def _metrics_port_is_open(self) -> bool:
        """Whether the metrics page can be read; tritonserver opens its port a moment after those of HTTP and gRPC."""
        if any(flag.startswith(("--allow-metrics", "--metrics-")) for flag in self._extra_flags):
            return True  # it may be elsewhere, or nowhere
        with socket.create_connection((self.hosts.grpc.ip, self.ports.metrics), timeout=5):
            return True

    def wait_until_ready(self, timeout: float) -> None:
        """Wait until every model is ready, at most `timeout` seconds.

        Raises:
            StartError: the process has ended, or is not ready in time.
        """
        deadline = time.monotonic() + timeout
        while not self.is_ready():
            if time.monotonic() > deadline:
                raise StartError(f"tritonserver is not ready after {timeout:.0f} s; its log says why")
            time.sleep(READY_POLL_SECONDS)

    def wait(self) -> int:
        """Wait for the process to end. Returns its exit status."""
        return self._running().wait()

    def terminate(self) -> None:
        """Send SIGTERM: the process ends once it has answered the requests in flight. Without one, do nothing."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Stop the process once it has answered the requests in flight, and remove its temporary folder."""
        if self.process is not None:
            self.terminate()
            try:
                self.process.wait(self._stop_seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
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
        if self.process is None:
            raise StartError("the server has not been started")
        return self.process

    def _command(self) -> tuple[list[str], dict[str, str]]:
        """Lay out the server's temporary folder. Returns its command line and its environment."""
        scratch = Path(self._scratch.name)
        installation = find_installation(scratch)
        repository = scratch / "models"
        repository.mkdir()
        for model in self._models:
            write_model(repository, model)
        for folder in self._folders:
            (repository / folder.name).symlink_to(folder)
        command = [os.fspath(installation.home / "bin" / "tritonserver"), *self._flags(installation)]
        return command, installation.environment({**self._environment, **self._variables()})

    def _variables(self) -> dict[str, str]:
        """What the stubs have to know."""
        return {
            "FLORENCE2_HEALTH_ADDRESS": self.hosts.health.ip,
            "FLORENCE2_HEALTH_PORT": str(self.ports.health),
            "FLORENCE2_GRPC_HEALTH_PORT": str(self.ports.grpc_health),
            START_ERROR_FILE: os.fspath(self._start_error_file),
        }

    def _flags(self, installation: Installation) -> list[str]:
        return [
            f"--model-repository={Path(self._scratch.name) / 'models'}",
            f"--backend-directory={installation.home / 'backends'}",
            "--model-control-mode=none",
            "--strict-readiness=true",
            "--disable-auto-complete-config",
            f"--http-address={self.hosts.http.of_http}",
            f"--grpc-address={self.hosts.grpc.of_grpc}",
            f"--metrics-address={self.hosts.grpc.of_http}",
            f"--http-port={self.ports.http}",
            f"--grpc-port={self.ports.grpc}",
            f"--metrics-port={self.ports.metrics}",
            f"--exit-timeout-secs={STOP_SECONDS / 2:.0f}",
            f"--backend-config=python,shm-default-byte-size={_SHARED_MEMORY_BYTES}",
            # For the request log.
            "--grpc-header-forward-pattern=traceparent",
            *_LOG_FLAGS,
            *([] if has_gpu() else ["--allow-gpu-metrics=false"]),
            *self._extra_flags,
        ]


def describe_end(status: int) -> str:
    """Say how tritonserver ended.

    Args:
        status: its exit status; negative after a signal.
    """
    if status < 0:
        return f"tritonserver was ended by {signal.Signals(-status).name}"
    return f"tritonserver ended with exit status {status}"


def has_gpu() -> bool:
    """Whether an NVIDIA GPU is visible."""
    return any(Path("/dev").glob("nvidia[0-9]*"))
