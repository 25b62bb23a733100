"""The settings of `florence2 web`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from florence2._arguments import check_count, check_seconds
from florence2.errors import InvalidArgumentError

LOOPBACK_HOSTS: Final = ("localhost", "127.0.0.1", "[::1]")
_MIB: Final = 1024 * 1024
_LAST_PORT: Final = 65_535


@dataclass(frozen=True)
class WebConfig:
    """Settings of the web server.

    Raises:
        InvalidArgumentError: a limit is not positive, or the port is not 0 to 65535.
    """

    host: str = "127.0.0.1"
    """The address to listen on; the default accepts connections only from this machine."""
    port: int = 8080
    """0 for any free port."""
    api_keys: Path | None = None
    """The file of API keys (`florence2.web.keys`); None: no key is required."""
    allowed_origins: tuple[str, ...] = ()
    """Origins of other websites whose scripts may send requests (CORS), e.g. `https://example.com`."""
    allowed_hosts: tuple[str, ...] = ()
    """Accepted values of the header `Host`, without the port. Empty: those of this machine if `host` is a loopback
    address, else any."""
    max_body_bytes: int = 32 * _MIB
    """The largest body of a request, in bytes."""
    max_image_pixels: int = 100_000_000
    """The largest image, width x height; checked before the image is sent to a server."""
    concurrency: int = 64
    """The maximum number of requests in flight. Further ones are refused with status 503."""
    timeout: float = 60.0
    """Seconds for each request: the default, and the maximum that a caller can set."""
    body_timeout: float = 30.0
    """Seconds within which a body must arrive."""
    drain: float = 30.0
    """Seconds to finish the requests in flight after SIGTERM or SIGINT."""

    access_log: bool = True
    """Whether to log each request."""

    def __post_init__(self) -> None:
        for name in ("max_body_bytes", "max_image_pixels", "concurrency"):
            check_count(name, getattr(self, name))
        for name in ("timeout", "body_timeout", "drain"):
            check_seconds(name, getattr(self, name))
        if not 0 <= self.port <= _LAST_PORT:
            raise InvalidArgumentError.of_field("port", self.port, f"0 to {_LAST_PORT}")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        return self.host == "localhost" or self.host == "::1" or self.host.startswith("127.")

    @property
    def accepted_hosts(self) -> tuple[str, ...]:
        """Accepted values of the header `Host`, without the port; empty: any."""
        return self.allowed_hosts or ((*LOOPBACK_HOSTS, self.host) if self.is_local else ())
