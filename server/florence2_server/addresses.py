"""The addresses and ports that a server listens on, in the spellings of Triton's services, and checks of them."""

import contextlib
import errno
import ipaddress
import os
import socket
from dataclasses import dataclass, fields

from florence2_server.errors import ConfigError


@dataclass(frozen=True)
class Ports:
    """The TCP ports of a server.

    Attributes:
        http: Triton's HTTP service.
        grpc: Triton's gRPC service.
        metrics: Triton's metrics page.
        health: the health of the engines over HTTP; 0: not served.
        grpc_health: the health of the engines in gRPC's health protocol; 0: not served.
    """

    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002
    health: int = 8003
    grpc_health: int = 8004

    @classmethod
    def free(cls) -> "Ports":
        """Ports that are unused at the moment."""
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in fields(cls)]
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            return cls(*(each.getsockname()[1] for each in sockets))


@dataclass(frozen=True)
class Address:
    """An address to listen on.

    Attributes:
        name: as it was given, without brackets.
        ip: the IPv4 or IPv6 address that it stands for.
    """

    name: str
    ip: str

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read an IPv4 address, an IPv6 address (brackets are optional) or the name of a host.

        Raises:
            ConfigError: it is none of these, or the name is unknown.
        """
        name = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        try:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM) if name else []
        except (socket.gaierror, UnicodeError):
            found = []
        if not found:
            raise ConfigError(f"address: got {text!r}, expected an IPv4 or IPv6 address, or the name of this machine")
        return cls(name, str(found[0][4][0]))

    @property
    def is_ipv6(self) -> bool:
        """Whether it is an IPv6 address."""
        return ":" in self.ip

    @property
    def of_grpc(self) -> str:
        """The spelling of gRPC, which can be followed by a port."""
        return f"[{self.ip}]" if self.is_ipv6 else self.ip

    @property
    def of_http(self) -> str:
        """The spelling of Triton's HTTP server, which knows no names of hosts."""
        return f"ipv6:{self.ip}" if self.is_ipv6 else self.ip

    @property
    def in_urls(self) -> str:
        """How this machine reaches it: the given name, or for all addresses (`0.0.0.0`, `::`) the loopback one."""
        if ipaddress.ip_address(self.ip).is_unspecified:
            return "[::1]" if self.is_ipv6 else "127.0.0.1"
        return f"[{self.name}]" if ":" in self.name else self.name


@dataclass(frozen=True)
class Hosts:
    """The addresses of a server's services.

    Attributes:
        grpc: the address of gRPC and of the metrics page.
        http: the address of HTTP.
        health: the address of the health of the engines.
    """

    grpc: Address
    http: Address
    health: Address

    @classmethod
    def all_at(cls, text: str) -> "Hosts":
        """One address for all services.

        Raises:
            ConfigError: it is not an address.
        """
        return cls(*[Address.parse(text)] * 3)


@dataclass(frozen=True)
class Listener:
    """A service's place to listen.

    Attributes:
        variable: the environment variable of its port, for error messages.
        address: its address.
        port: its port.
        is_ipv6_only: whether it does not accept IPv4 on the address of all interfaces, `::`.
    """

    variable: str
    address: Address
    port: int
    is_ipv6_only: bool


def listeners(hosts: Hosts, ports: Ports) -> list[Listener]:
    """The places where a server listens."""
    services = [
        ("HTTP", hosts.http, ports.http, True),
        ("GRPC", hosts.grpc, ports.grpc, False),
        ("METRICS", hosts.grpc, ports.metrics, True),
        ("HEALTH", hosts.health, ports.health, False),
        ("GRPC_HEALTH", hosts.health, ports.grpc_health, False),
    ]
    return [Listener(f"FLORENCE2_{name}_PORT", address, port, only) for name, address, port, only in services if port]


def check_listeners(hosts: Hosts, ports: Ports) -> None:
    """Check that each service can listen at this moment.

    Raises:
        ConfigError: two services have the same port, a port is in use, or this machine does not have the address.
    """
    by_port: dict[int, Listener] = {}
    for listener in listeners(hosts, ports):
        other = by_port.setdefault(listener.port, listener)
        if other is not listener:
            raise ConfigError(f"{listener.variable}: got {listener.port}, which is {other.variable} too")
        _check(listener)


def _check(listener: Listener) -> None:
    with socket.socket(socket.AF_INET6 if listener.address.is_ipv6 else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that linger do not count
        if listener.address.is_ipv6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, listener.is_ipv6_only)
        try:
            probe.bind((listener.address.ip, listener.port))
            probe.listen()
        except OSError as error:
            place = f"{listener.address.of_grpc}:{listener.port}"
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(f"{listener.variable}: {place} is already in use") from None
            if error.errno == errno.EADDRNOTAVAIL:
                raise ConfigError(f"address: got {listener.address.name!r}, which is not this machine's") from None
            reason = os.strerror(error.errno or 0)
            raise ConfigError(f"{listener.variable}: cannot listen on {place}: {reason}") from None
