"""The command `florence2 health`, for probes: it imports as little as possible."""

import argparse
from collections.abc import Sequence
from contextlib import closing

from florence2._arguments import check_seconds
from florence2.cli.http_health import http_health
from florence2.cli.served import served
from florence2.errors import Florence2Error
from florence2.transports.protocol import Health

_PROBE_SECONDS = 0.9  # one second, less the start of Python


def health(arguments: Sequence[str]) -> int:
    """Check a server, and print its state in one line. Returns the exit status."""
    return _health(parser().parse_args(arguments))


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    health = argparse.ArgumentParser(
        prog="florence2 health",
        description="Checks Triton, the model and the engines behind it, and prints their state and what they serve "
        "in one line. As for a liveness probe, the exit status is 0 if the engines run or are being started, and 1 if "
        "only a restart of the container helps. Proxies of the environment are not used.",
    )
    health.add_argument(
        "--url",
        default="localhost:8001",
        help="host:port of Triton's gRPC (default %(default)s), or http://host:port of Triton's HTTP or of the port "
        "for health; an IPv6 address is in brackets: [::1]:8001",
    )
    health.add_argument("--model", default="florence2", help="default %(default)s")
    health.add_argument("--ready", action="store_true", help="exit status 0 only if requests are answered now")
    health.add_argument(
        "--header", type=_header, action="append", default=[], metavar="NAME=VALUE", help="gRPC metadata"
    )
    health.add_argument("--tls-root-certificates", metavar="FILE", help="use TLS, and trust these authorities (PEM)")
    health.add_argument("--tls-private-key", metavar="FILE", help="client key for mutual TLS (PEM)")
    health.add_argument("--tls-certificate-chain", metavar="FILE", help="client certificate for mutual TLS (PEM)")
    health.add_argument("--tls-server-name", metavar="NAME", help="name in the server's certificate, if not url's")
    health.add_argument("--timeout", type=float, default=_PROBE_SECONDS, help="seconds (default %(default)s)")
    return health


def _health(options: argparse.Namespace) -> int:
    try:
        health = _check(options)
    except (Florence2Error, OSError) as error:
        print(f"unhealthy: {' '.join(str(error).split())}")  # noqa: T201 - what the command is for
        return 1
    is_healthy = health.is_ready if options.ready else health.is_alive
    server = "live" if health.server_is_live else "down"
    model = "ready" if health.model_is_ready else "not ready"
    line = f"{'healthy' if is_healthy else 'unhealthy'}: server {server}, model {model}, engine {health.engine}"
    reason = f" ({' '.join(health.reason.split())})" if health.reason else ""
    print(line + reason + (f"; {served(health.info)}" if health.info else ""))  # noqa: T201
    return 0 if is_healthy else 1


def _check(options: argparse.Namespace) -> Health:
    if options.url.startswith("http://"):
        return http_health(options.url, options.model, options.timeout)
    return _grpc_health(options)


def _grpc_health(options: argparse.Namespace) -> Health:
    # Takes half the time of a probe; HTTP does not need it. A client would also import everything for images.
    from florence2.transports.destination import TLS, Destination
    from florence2.transports.triton import TritonTransport

    files = (options.tls_root_certificates, options.tls_private_key, options.tls_certificate_chain)
    name = options.tls_server_name
    destination = Destination(
        options.url,
        model=options.model,
        tls=TLS(*files) if any(files) else None,
        # A probe's server is near: a proxy for the rest of the world cannot reach it.
        channel_args=[("grpc.enable_http_proxy", 0), *([("grpc.ssl_target_name_override", name)] if name else [])],
        headers=dict(options.header),
        retry=None,
    )
    with closing(TritonTransport(destination)) as transport:
        (health,) = transport.health(check_seconds("timeout", options.timeout))
    return health


def _header(argument: str) -> tuple[str, str]:
    name, separator, value = argument.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"got {argument!r}, expected NAME=VALUE")
    return name, value
