"""The command `florence2`."""

import argparse
import sys
from collections.abc import Sequence

from florence2._health import Health
from florence2._http_health import http_health
from florence2.errors import Florence2Error

_PROBE_SECONDS = 0.9  # a second with the start of Python left out


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and end with its exit status."""
    parser = argparse.ArgumentParser(prog="florence2", description="Florence-2 on Triton.")
    commands = parser.add_subparsers(dest="command", required=True)
    health = commands.add_parser(
        "health",
        help="look through Triton to the engine: exit status 0 if all is well, else 1",
        description="Looks through Triton and its stub to the engine, and says in one line how it is. Exit status 0 "
        "while answers can be expected, also from an engine that is being replaced; 1 where only a restart of the "
        "container helps. That is what a liveness probe asks.",
    )
    health.add_argument(
        "--url", default="localhost:8001", help="host:port of Triton's gRPC (default %(default)s), or http://host:port"
    )
    health.add_argument("--model", default="florence2", help="default %(default)s")
    health.add_argument("--ready", action="store_true", help="exit status 0 only if the engine answers now: readiness")
    health.add_argument("--header", type=_header, action="append", default=[], metavar="NAME=VALUE", help="of gRPC")
    health.add_argument("--tls-root-certificates", metavar="FILE", help="encrypt, and trust these authorities (PEM)")
    health.add_argument("--tls-private-key", metavar="FILE", help="for mutual TLS")
    health.add_argument("--tls-certificate-chain", metavar="FILE", help="for mutual TLS")
    health.add_argument("--tls-server-name", metavar="NAME", help="in the server's certificate, where it is not in url")
    health.add_argument("--timeout", type=float, default=_PROBE_SECONDS, help="seconds (default %(default)s)")
    sys.exit(_health(parser.parse_args(arguments)))


def _health(options: argparse.Namespace) -> int:
    try:
        health = _ask(options)
    except (Florence2Error, OSError) as error:
        print(f"unhealthy: {error}")  # noqa: T201 - what the command is for
        return 1
    is_well = health.is_ready if options.ready else health.is_alive
    server = "live" if health.server_is_live else "down"
    model = "ready" if health.model_is_ready else "not ready"
    line = f"{'healthy' if is_well else 'unhealthy'}: server {server}, model {model}, engine {health.engine}"
    print(line + (f" ({' '.join(health.reason.split())})" if health.reason else ""))  # noqa: T201
    return 0 if is_well else 1


def _ask(options: argparse.Namespace) -> Health:
    if options.url.startswith("http://"):
        return http_health(options.url, options.model, options.timeout)
    return _grpc_health(options)


def _grpc_health(options: argparse.Namespace) -> Health:
    from florence2.client import TLS, Client  # half the time of a probe, which HTTP does without

    files = (options.tls_root_certificates, options.tls_private_key, options.tls_certificate_chain)
    name = options.tls_server_name
    client = Client(
        options.url,
        model=options.model,
        tls=TLS(*files) if any(files) else None,
        channel_args=[("grpc.ssl_target_name_override", name)] if name else [],
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
