"""The flags of tritonserver that follow from the server's environment variables."""

import secrets
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from florence2_server.errors import ConfigError
from florence2_server.server_settings import ServerSettings

# Closed to callers in the images. If the operator sets no key, a random one closes them to everyone.
_RESTRICTED = "shared-memory,model-config,model-repository,statistics,trace,logging"
_RESTRICTED_HEADER = "admin-key"
# Flags of tritonserver that would hide from this package where HTTP listens, and the variables for the same.
_VARIABLES = {"--http-port": "FLORENCE2_HTTP_PORT", "--http-address": "FLORENCE2_HTTP_ADDRESS"}
_TRUE = ("true", "on", "1")  # as tritonserver reads a flag


def flags(settings: ServerSettings, *, is_closed: bool) -> list[str]:
    """The flags of tritonserver, except for addresses and ports.

    Args:
        settings: the server's settings.
        is_closed: whether administrative calls are closed to everyone if no key is set.

    Raises:
        ConfigError: a setting is invalid.
    """
    verbosity = settings.number("LOG_VERBOSE", 0, 5)
    return [
        *([f"--log-verbose={verbosity}", "--log-info=true"] if verbosity else []),
        f"--exit-timeout-secs={settings.number('EXIT_TIMEOUT_SECONDS', 0, 86_400)}",
        *_connection_flags(settings),
        *_restriction_flags(settings, is_closed),
        *_tls_flags(settings),
        *_trace_flags(settings),
    ]


def check_arguments(arguments: Sequence[str]) -> None:
    """Check that an operator's own flags of tritonserver leave its readiness visible, which only HTTP reports.

    Args:
        arguments: the flags, with their values after an equals sign or as the next argument.

    Raises:
        ConfigError: a flag turns HTTP off, moves it, or closes its health API.
    """
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        flag, equals, value = argument.partition("=")
        value = value if equals else following
        if _is_flag(flag, "--allow-http") and value.lower() not in _TRUE:
            raise ConfigError(
                f"--allow-http: got {value!r}, expected true, because only HTTP reports readiness; "
                "FLORENCE2_HTTP_ADDRESS=127.0.0.1 closes it to other machines"
            )
        for name in _VARIABLES:
            if _is_flag(flag, name):
                raise ConfigError(f"{name}: got {value!r}, expected {_VARIABLES[name]} instead of this flag")
        if _is_flag(flag, "--http-restricted-api") and "health" in _restricted_by(value):
            raise ConfigError(
                f"--http-restricted-api: got {value!r}, expected a value without health, because only HTTP reports "
                "readiness"
            )


def _is_flag(given: str, name: str) -> bool:
    """Whether it is the flag of this name, or an abbreviation of it, which tritonserver accepts."""
    return len(given) > len("--") and name.startswith(given)


def _restricted_by(value: str) -> list[str]:
    return [api.strip() for api in value.partition(":")[0].split(",")]


def _connection_flags(settings: ServerSettings) -> Iterator[str]:
    keepalive = settings.milliseconds("GRPC_KEEPALIVE_SECONDS")
    yield f"--grpc-max-connection-age={settings.milliseconds('GRPC_CONNECTION_AGE_SECONDS')}"
    yield f"--grpc-max-connection-age-grace={settings.milliseconds('GRPC_CONNECTION_GRACE_SECONDS')}"
    yield f"--grpc-keepalive-time={keepalive}"
    yield "--grpc-keepalive-permit-without-calls=1"
    yield "--grpc-http2-max-pings-without-data=0"  # otherwise an idle connection is pinged only twice
    yield f"--grpc-http2-min-recv-ping-interval-without-data={keepalive}"


def _restriction_flags(settings: ServerSettings, is_closed: bool) -> Iterator[str]:
    key_file, key = settings.file("RESTRICTED_PROTOCOL_KEY_FILE"), settings.text("RESTRICTED_PROTOCOL_KEY")
    if key_file is not None:
        key = key_file.read_text().strip()
        if not key:
            raise ConfigError(f"FLORENCE2_RESTRICTED_PROTOCOL_KEY_FILE: got the empty file {str(key_file)!r}")
    if not key and not is_closed:
        return
    rule = f"{_RESTRICTED}:{_RESTRICTED_HEADER}={key or secrets.token_urlsafe(32)}"
    yield f"--grpc-restricted-protocol={rule}"
    yield f"--http-restricted-api={rule}"


def _tls_flags(settings: ServerSettings) -> Iterator[str]:
    certificate, key = settings.file("GRPC_TLS_CERTIFICATE"), settings.file("GRPC_TLS_KEY")
    authority = settings.file("GRPC_TLS_CLIENT_AUTHORITY")
    if (certificate is None) != (key is None) or (authority is not None and key is None):
        raise ConfigError(
            "FLORENCE2_GRPC_TLS_CERTIFICATE and FLORENCE2_GRPC_TLS_KEY must be set together, and "
            "FLORENCE2_GRPC_TLS_CLIENT_AUTHORITY requires both"
        )
    if certificate is not None:
        yield from ("--grpc-use-ssl=1", f"--grpc-server-cert={certificate}", f"--grpc-server-key={key}")
    if authority is not None:
        yield from ("--grpc-use-ssl-mutual=1", f"--grpc-root-cert={authority}")


def _trace_flags(settings: ServerSettings) -> Iterator[str]:
    endpoint = settings.text("OTLP_ENDPOINT")
    if not endpoint:
        return
    if not endpoint.startswith(("http://", "https://")):
        raise ConfigError(f"FLORENCE2_OTLP_ENDPOINT: got {endpoint!r}, expected http://host:4318 or https://...")
    for setting in (
        "mode=opentelemetry",
        "level=TIMESTAMPS",
        f"rate={settings.number('TRACE_RATE', 1, 2**31 - 1)}",
        f"opentelemetry,url={endpoint.rstrip('/')}/v1/traces",
        "opentelemetry,resource=service.name=florence2",
    ):
        yield f"--trace-config={setting}"
