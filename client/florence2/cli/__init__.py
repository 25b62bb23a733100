"""The command `florence2`."""

import argparse
import sys
from collections.abc import Sequence

from florence2.cli.http_health import http_health
from florence2.cli.served import served
from florence2.errors import Florence2Error
from florence2.transports.protocol import Health

_PROBE_SECONDS = 0.9  # one second, less the start of Python


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its status."""
    sys.exit(_health(_parser().parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="florence2", description="Florence-2 on Triton.")
    commands = parser.add_subparsers(dest="command", required=True)
    health = commands.add_parser(
        "health",
        help="check Triton, the model and the engine: exit status 0 if healthy, else 1",
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
    return parser


def _health(options: argparse.Namespace) -> int:
    try:
        health = _check(options)
    except (Florence2Error, OSError) as error:
        print(f"unhealthy: {error}")  # noqa: T201 - what the command is for
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
    from florence2.client import TLS, Client  # takes half the time of a probe; HTTP does not need it

    files = (options.tls_root_certificates, options.tls_private_key, options.tls_certificate_chain)
    name = options.tls_server_name
    client = Client(
        options.url,
        model=options.model,
        tls=TLS(*files) if any(files) else None,
        # A probe's server is near: a proxy for the rest of the world cannot reach it.
        channel_args=[("grpc.enable_http_proxy", 0), *([("grpc.ssl_target_name_override", name)] if name else [])],
        headers=dict(options.header),
        retry=None,
    )
    with client:
        (health,) = client.health(timeout=options.timeout)
    return health


def _header(argument: str) -> tuple[str, str]:
    name, separator, value = argument.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"got {argument!r}, expected NAME=VALUE")
    return name, value
