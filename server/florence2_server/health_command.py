"""The command `florence2-server health`: a probe that finds the server by the server's own environment variables.

It imports neither gRPC nor PyTorch, because a probe is started every few seconds.
"""

import argparse
import http.client
import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from florence2.cli.http_health import http_health
from florence2.errors import Florence2Error

from florence2_server.errors import ConfigError
from florence2_server.server_settings import ServerSettings

_TIMEOUT_SECONDS = 4.0  # less than that of the images' HEALTHCHECK, which ends a command without its line
_DAY_SECONDS = 86_400.0
_EXPECTED = (http.client.OK, http.client.SERVICE_UNAVAILABLE)


class _TooLateError(Exception):
    """The server did not respond in time. Not an OSError, which would count as an answer about one model."""


def main(arguments: Sequence[str]) -> int:
    """Print the health of the server in one line. Returns the exit status: 0 if it is healthy, else 1."""
    options = _parser().parse_args(arguments)
    try:
        with _deadline(options.timeout):
            # The deadline comes before a request's own timeout.
            is_healthy, what = check(os.environ, is_ready=options.ready, timeout=2 * options.timeout)
    except _TooLateError:
        is_healthy, what = False, f"no response within {options.timeout:g} s"
    except (ConfigError, Florence2Error) as error:
        is_healthy, what = False, str(error)
    print(f"{'healthy' if is_healthy else 'unhealthy'}: {' '.join(what.split())}")  # noqa: T201 - a command's output
    return 0 if is_healthy else 1


def check(environment: Mapping[str, str], *, is_ready: bool, timeout: float) -> tuple[bool, str]:
    """Look up the health of the server on this machine that has these environment variables.

    Args:
        environment: the server's.
        is_ready: whether requests have to be answered now; otherwise a server that is starting is healthy too.
        timeout: seconds for each of a few requests.

    Returns:
        Whether it is healthy, and the state of each served model.

    Raises:
        ConfigError: a setting is invalid.
        Florence2Error: the server reports what it serves in another way than this project's servers.
    """
    settings = ServerSettings(environment)
    hosts, ports = settings.hosts, settings.ports
    if ports.health:
        return _reported(hosts.health.in_urls, ports.health, "ready" if is_ready else "live", timeout)
    names = [model.name for model in settings.served_models()]
    return _through_triton(f"http://{hosts.http.in_urls}:{ports.http}", names, is_ready, timeout)


def _reported(host: str, port: int, kind: str, timeout: float) -> tuple[bool, str]:
    """What the port for health reports, which knows all models."""
    connection = http.client.HTTPConnection(f"{host}:{port}", timeout=timeout)  # uses no proxy
    place = f"http://{host}:{port}/{kind}"
    try:
        connection.request("GET", f"/{kind}")
        response = connection.getresponse()
        if response.status not in _EXPECTED:
            return False, f"{place}: HTTP {response.status}, expected a port for health"
        models = json.loads(response.read())["models"]
        states = ", ".join(f"{name} {model['state']}" for name, model in models.items()) or "no served models"
    except (OSError, http.client.HTTPException) as error:
        return False, f"{place}: {error or type(error).__name__}"
    except (ValueError, LookupError, TypeError, AttributeError):
        return False, f"{place}: not JSON of a port for health"
    finally:
        connection.close()
    return response.status == http.client.OK, states


def _through_triton(url: str, names: Sequence[str], is_ready: bool, timeout: float) -> tuple[bool, str]:
    """The health of these models, through Triton's HTTP and their models for health."""
    healths = {name: http_health(url, name, timeout) for name in names}
    states = (
        f"{name} {health.engine}" + (f" ({health.reason})" if health.reason else "") for name, health in healths.items()
    )
    are_healthy = all(health.is_ready if is_ready else health.is_alive for health in healths.values())
    return are_healthy, f"{', '.join(states)}; through {url}"


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Limit a block to a time, however many requests it sends and however slowly a response arrives.

    Raises:
        _TooLateError: the time is over.
    """

    def end(*_: object) -> None:
        raise _TooLateError

    previous = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="florence2-server health",
        description="Print the state of all served models in one line, for probes in the server's container. The "
        "exit status is 0 if the engines run or are being started, and 1 if only a restart of the container helps. "
        "The environment variables have to be those of the server; settings that it was given as options are unknown "
        "here. The port for health is used, or Triton's HTTP if FLORENCE2_HEALTH_PORT is 0; never a proxy.",
    )
    parser.add_argument("--ready", action="store_true", help="exit status 0 only if requests are answered now")
    parser.add_argument(
        "--timeout", type=_seconds, default=_TIMEOUT_SECONDS, metavar="SECONDS", help="default: %(default)g"
    )
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _DAY_SECONDS:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected more than 0 and at most 86400 seconds")
    return seconds
