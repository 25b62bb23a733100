"""The process of both images: tritonserver with the flags of production, set by environment variables.

Arguments of the container (`docker run IMAGE --log-info=0`) are handed to tritonserver as they are, and win.

This process turns into tritonserver, so that it is tritonserver that gets the container's SIGTERM and whose exit status
is the container's.
"""

import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from serve import REPOSITORY, Ports, ServerError, TritonServer, has_gpu

# Where the build argument CHECKPOINT puts weights.
BAKED_CHECKPOINT = REPOSITORY.parent / "checkpoint"

# What a caller of the model has no business with. Without a key of the operator's nobody can use it at all.
_RESTRICTED = "shared-memory,model-config,model-repository,statistics,trace,logging"
_RESTRICTED_HEADER = "admin-key"


class SettingError(Exception):
    """A variable's value cannot be used."""


# README.md says what each is for.
VARIABLES = {
    "FLORENCE2_ADDRESS": "0.0.0.0",  # noqa: S104 - a container's network is its own
    "FLORENCE2_HTTP_ADDRESS": "",
    "FLORENCE2_HTTP_PORT": str(Ports.http),
    "FLORENCE2_GRPC_PORT": str(Ports.grpc),
    "FLORENCE2_METRICS_PORT": str(Ports.metrics),
    "FLORENCE2_EXIT_TIMEOUT_SECONDS": "30",
    "FLORENCE2_RESTRICTED_PROTOCOL_KEY": "",
    "FLORENCE2_RESTRICTED_PROTOCOL_KEY_FILE": "",
    "FLORENCE2_GRPC_TLS_CERTIFICATE": "",
    "FLORENCE2_GRPC_TLS_KEY": "",
    "FLORENCE2_GRPC_TLS_CLIENT_AUTHORITY": "",
    "FLORENCE2_GRPC_CONNECTION_AGE_SECONDS": "300",
    "FLORENCE2_GRPC_CONNECTION_GRACE_SECONDS": "600",
    "FLORENCE2_GRPC_KEEPALIVE_SECONDS": "60",
    "FLORENCE2_OTLP_ENDPOINT": "",
    "FLORENCE2_TRACE_RATE": "100",
    "FLORENCE2_LOG_VERBOSE": "0",
    "FLORENCE2_REQUIRE_GPU": "0",
}


class Settings:
    """The variables, read and checked.

    Args:
        environment: where they are looked up. An empty one counts as not set.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._values = {name: environment.get(name) or default for name, default in VARIABLES.items()}

    def text(self, name: str) -> str:
        """A value as it stands."""
        return self._values[f"FLORENCE2_{name}"]

    def number(self, name: str, least: int, most: int) -> int:
        """A whole number.

        Raises:
            SettingError: it is none, or out of range.
        """
        text = self.text(name)
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
            raise SettingError(f"FLORENCE2_{name}: got {text!r}, expected a whole number from {least} to {most}")
        return int(text)

    def milliseconds(self, name: str) -> int:
        """Seconds, a day at most, as Triton wants them."""
        return 1000 * self.number(name, 1, 86_400)

    def file(self, name: str) -> Path | None:
        """A file that can be read; None where none is named.

        Raises:
            SettingError: there is no such file, or this user may not read it.
        """
        if not self.text(name):
            return None
        path = Path(self.text(name))
        if not path.is_file() or not os.access(path, os.R_OK):
            raise SettingError(f"FLORENCE2_{name}: {str(path)!r} is no file that user {os.getuid()} can read")
        return path


def ports(settings: Settings) -> Ports:
    """Where the server listens."""
    return Ports(*(settings.number(f"{name}_PORT", 1, 65_535) for name in ("HTTP", "GRPC", "METRICS")))


def flags(settings: Settings) -> list[str]:
    """The flags of tritonserver, but for ports and addresses."""
    return [
        "--log-format=ISO8601",
        f"--log-verbose={settings.number('LOG_VERBOSE', 0, 5)}",
        f"--exit-timeout-secs={settings.number('EXIT_TIMEOUT_SECONDS', 0, 86_400)}",
        *_connection_flags(settings),
        *_restriction_flags(settings),
        *_tls_flags(settings),
        *_trace_flags(settings),
    ]


def _connection_flags(settings: Settings) -> Iterator[str]:
    keepalive = settings.milliseconds("GRPC_KEEPALIVE_SECONDS")
    yield f"--grpc-max-connection-age={settings.milliseconds('GRPC_CONNECTION_AGE_SECONDS')}"
    yield f"--grpc-max-connection-age-grace={settings.milliseconds('GRPC_CONNECTION_GRACE_SECONDS')}"
    yield f"--grpc-keepalive-time={keepalive}"
    yield "--grpc-keepalive-permit-without-calls=1"
    yield "--grpc-http2-max-pings-without-data=0"  # else a quiet connection is pinged twice and never again
    yield f"--grpc-http2-min-recv-ping-interval-without-data={keepalive}"


def _restriction_flags(settings: Settings) -> Iterator[str]:
    key_file, key = settings.file("RESTRICTED_PROTOCOL_KEY_FILE"), settings.text("RESTRICTED_PROTOCOL_KEY")
    if key_file is not None:
        key = key_file.read_text().strip()
        if not key:
            raise SettingError(f"FLORENCE2_RESTRICTED_PROTOCOL_KEY_FILE: {str(key_file)!r} is empty")
    rule = f"{_RESTRICTED}:{_RESTRICTED_HEADER}={key or secrets.token_urlsafe(32)}"
    yield f"--grpc-restricted-protocol={rule}"
    yield f"--http-restricted-api={rule}"


def _tls_flags(settings: Settings) -> Iterator[str]:
    certificate, key = settings.file("GRPC_TLS_CERTIFICATE"), settings.file("GRPC_TLS_KEY")
    authority = settings.file("GRPC_TLS_CLIENT_AUTHORITY")
    if (certificate is None) != (key is None) or (authority is not None and key is None):
        raise SettingError(
            "FLORENCE2_GRPC_TLS_CERTIFICATE: goes with FLORENCE2_GRPC_TLS_KEY, and FLORENCE2_GRPC_TLS_CLIENT_AUTHORITY "
            "with both"
        )
    if settings.text("HTTP_ADDRESS") or certificate is not None:
        # Triton's HTTP has no TLS.
        yield f"--http-address={settings.text('HTTP_ADDRESS') or '127.0.0.1'}"
    if certificate is not None:
        yield from ("--grpc-use-ssl=1", f"--grpc-server-cert={certificate}", f"--grpc-server-key={key}")
    if authority is not None:
        yield from ("--grpc-use-ssl-mutual=1", f"--grpc-root-cert={authority}")


def _trace_flags(settings: Settings) -> Iterator[str]:
    endpoint = settings.text("OTLP_ENDPOINT")
    if not endpoint:
        return
    if not endpoint.startswith(("http://", "https://")):
        raise SettingError(f"FLORENCE2_OTLP_ENDPOINT: got {endpoint!r}, expected http://host:4318 or https://...")
    for setting in (
        "mode=opentelemetry",
        "level=TIMESTAMPS",
        f"rate={settings.number('TRACE_RATE', 1, 2**31 - 1)}",
        f"opentelemetry,url={endpoint.rstrip('/')}/v1/traces",
        "opentelemetry,resource=service.name=florence2",
    ):
        yield f"--trace-config={setting}"


def checkpoint(environment: Mapping[str, str]) -> str:
    """The weights to serve.

    Raises:
        SettingError: none are named, and none are in the image. The demo checkpoint, which the model falls back to
            elsewhere, is nothing that a fleet should serve by mistake.
    """
    if environment.get("FLORENCE2_CHECKPOINT"):
        return environment["FLORENCE2_CHECKPOINT"]
    if (BAKED_CHECKPOINT / "config.json").is_file():
        return os.fspath(BAKED_CHECKPOINT)
    raise SettingError("FLORENCE2_CHECKPOINT: not set, and this image has no checkpoint; name a folder or a hub id")


def main(arguments: Sequence[str]) -> None:
    """Turn into tritonserver."""
    try:
        settings = Settings(os.environ)
        if settings.number("REQUIRE_GPU", 0, 1) and not has_gpu():
            raise SettingError("FLORENCE2_REQUIRE_GPU: no NVIDIA GPU is visible to this container")
        os.environ["FLORENCE2_CHECKPOINT"] = checkpoint(os.environ)
        os.environ.pop("FLORENCE2_RESTRICTED_PROTOCOL_KEY", None)  # nothing that the engine has to know
        TritonServer(ports(settings), host=settings.text("ADDRESS"), flags=[*flags(settings), *arguments]).become()
    except (SettingError, ServerError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
