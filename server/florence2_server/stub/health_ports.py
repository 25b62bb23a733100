"""Health of a tritonserver. One of its stubs for health observes all served models, and listens on the ports."""

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Final

from florence2_server.environment import without_injected
from florence2_server.errors import ConfigError
from florence2_server.served_model import HEALTH_SUFFIX
from florence2_server.settings import ENVIRONMENT_PREFIX, config_of
from florence2_server.stub.health_grpc import HealthGrpcServer
from florence2_server.stub.health_http import HealthHttpServer
from florence2_server.stub.health_report import Poller, Report
from florence2_server.stub.sockets import FolderError, create_folder

_LOCK: Final = "health.lock"
_LOOPBACK: Final = "127.0.0.1"
_MOST: Final = 65_535


@dataclass(frozen=True)
class HealthConfig:
    """The settings of health.

    Attributes:
        health_port: port for HTTP; 0: not served.
        grpc_health_port: port for gRPC's health protocol; 0: not served.
        health_address: the address to listen on; if empty, `address`.
        address: the address of the server's other ports; if empty, the loopback interface.
    """

    health_port: int = 0
    grpc_health_port: int = 0
    health_address: str = ""
    address: str = ""

    def __post_init__(self) -> None:
        for name in ("health_port", "grpc_health_port"):
            if not 0 <= getattr(self, name) <= _MOST:
                raise ConfigError(f"{name}: got {getattr(self, name)}, expected at most {_MOST}, or 0 for none")

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> "HealthConfig":
        """Read the settings, without what Kubernetes and Docker define for services.

        Raises:
            ConfigError: a value is not a number or is out of range.
        """
        given = without_injected(environment)
        values = {field.name: given.get(ENVIRONMENT_PREFIX + field.name.upper()) for field in fields(cls)}
        return config_of(cls, {name: value for name, value in values.items() if value})

    @property
    def listening_address(self) -> str:
        """The address to listen on, without the brackets of IPv6."""
        return (self.health_address or self.address or _LOOPBACK).strip("[]")


class PortError(Exception):
    """A port cannot be listened on. The message names the setting, the address and the reason."""


class HealthPorts:
    """Observes the served models and listens on the ports for health, unless another stub of this tritonserver does.

    It also observes them if both ports are off.

    Args:
        models: the names of all served models.
        config: ports and address.
        show: called with each report.

    Raises:
        FolderError: the folder of the sockets cannot be used.
        PortError: a port cannot be listened on.
    """

    def __init__(self, models: Sequence[str], config: HealthConfig, show: Callable[[Report], None]) -> None:
        with ExitStack() as stack:
            if stack.enter_context(_election()):
                _listen(models, config, show, stack)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Stop observing and listening."""
        self._stack.close()


def served_models(model_folder: Path) -> list[str]:
    """The served models of a model repository, in the order of their names: those that have a model for health.

    Args:
        model_folder: the folder of one of the models for health, in the repository.
    """
    names = [path.name.removesuffix(HEALTH_SUFFIX) for path in model_folder.parent.glob(f"*{HEALTH_SUFFIX}")]
    return sorted(name for name in names if (model_folder.parent / name).is_dir())


def _listen(models: Sequence[str], config: HealthConfig, show: Callable[[Report], None], stack: ExitStack) -> None:
    address, poller, receivers = config.listening_address, Poller(models), [show]
    if config.health_port:
        with _named("health_port", address, config.health_port):
            http = HealthHttpServer(address, config.health_port, lambda: poller.report)
        stack.callback(http.close)
    if config.grpc_health_port:
        with _named("grpc_health_port", address, config.grpc_health_port):
            server = HealthGrpcServer(address, config.grpc_health_port, poller.report)
        stack.callback(server.close)
        receivers.append(server.publish)
    stack.callback(poller.close)  # first, so that the last report is published
    poller.start(partial(_publish, receivers))


def _publish(receivers: Sequence[Callable[[Report], None]], report: Report) -> None:
    for receive in receivers:
        receive(report)


@contextmanager
def _named(setting: str, address: str, port: int) -> Iterator[None]:
    """Raise the error of a port as one that names the setting."""
    try:
        yield
    except OSError as error:
        raise PortError(f"{setting}: cannot listen on {address} port {port}: {error.strerror or error}") from None


@contextmanager
def _election() -> Iterator[bool]:
    """Yields whether this process observes its tritonserver: True for the first one, until it ends."""
    path = create_folder() / _LOCK
    with os.fdopen(_open_lock(path), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)
            with suppress(OSError):  # it holds the sockets of other stubs
                path.parent.rmdir()


def _open_lock(path: Path) -> int:
    """Open a lock file, created if need be, as it is: not through a link, and without truncating it."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise FolderError(f"{path}: cannot be opened as a lock file: {error.strerror}") from None
