"""The environment variables of the server: which ones there are, and a check that finds misspelled ones."""

import re
from collections.abc import Mapping

from florence2_server.config import (
    AdapterConfig,
    AdmissionConfig,
    EngineConfig,
    LogConfig,
    ObjectiveConfig,
    RequestLimits,
    SupervisionConfig,
)
from florence2_server.settings import ENVIRONMENT_PREFIX, ConfigError, nearest, setting_names

# The dataclasses whose fields are settings: of each served model, or of all of them in the environment.
CONFIGS = (EngineConfig, AdapterConfig, RequestLimits, AdmissionConfig, ObjectiveConfig, LogConfig, SupervisionConfig)

# Of the whole server, with their defaults in the images; docker/README.md explains them.
VARIABLES = {
    "FLORENCE2_MODELS": "",
    "FLORENCE2_MODEL_SETTINGS": "",
    "FLORENCE2_ADDRESS": "0.0.0.0",  # noqa: S104 - a container has a network of its own
    "FLORENCE2_HTTP_ADDRESS": "",
    "FLORENCE2_HEALTH_ADDRESS": "",
    "FLORENCE2_HTTP_PORT": "8000",
    "FLORENCE2_GRPC_PORT": "8001",
    "FLORENCE2_METRICS_PORT": "8002",
    "FLORENCE2_HEALTH_PORT": "8003",
    "FLORENCE2_GRPC_HEALTH_PORT": "8004",
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
# What runs as the engine, for tests and for operators who wrap it: a module's name, or the path of a Python file.
ENGINE_MODULE = "FLORENCE2_ENGINE_MODULE"
# Set by the command for the stubs.
START_ERROR_FILE = "FLORENCE2_START_ERROR_FILE"

# Kubernetes defines such variables for every Service in the namespace, and Docker for every linked container: for one
# that is called florence2-http, FLORENCE2_HTTP_SERVICE_HOST and FLORENCE2_HTTP_PORT=tcp://10.0.0.1:8000.
_INJECTED = re.compile(
    rf"{ENVIRONMENT_PREFIX}(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_\w+|ENV_\w+)", re.ASCII | re.IGNORECASE
)
_INJECTED_VALUES = {"PORT": re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE), "NAME": re.compile("/")}


def public_variables() -> list[str]:
    """The names of the variables that an operator may set."""
    settings = [f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in setting_names(*CONFIGS)]
    return [*settings, *VARIABLES, ENGINE_MODULE]


def known_variables() -> list[str]:
    """The names of all variables that the server reads, including the one that it sets for its own processes."""
    return [*public_variables(), START_ERROR_FILE]


def is_injected(name: str, value: str) -> bool:
    """Whether a variable was defined by Kubernetes or Docker for a service whose name begins with "florence2"."""
    if not name.startswith(ENVIRONMENT_PREFIX):
        return False
    address = _INJECTED_VALUES.get(name.rsplit("_", 1)[1])
    return bool(_INJECTED.fullmatch(name) or (address and address.match(value)))


def without_injected(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without the variables that Kubernetes and Docker define for services."""
    return {name: value for name, value in environment.items() if not is_injected(name, value)}


def check_environment(environment: Mapping[str, str]) -> None:
    """Check that the server reads every variable that begins with `FLORENCE2_`, injected ones excepted.

    Raises:
        ConfigError: there are others. The message, one line, suggests for each the most similar name that may be set.
    """
    public = public_variables()
    unknown = [name for name in without_injected(environment) if name.startswith(ENVIRONMENT_PREFIX)]
    if unknown := sorted(set(unknown) - set(known_variables())):
        raise ConfigError(
            "; ".join(f"{name}: no such variable, did you mean {_nearest(name, public)}?" for name in unknown)
        )


def _nearest(name: str, variables: list[str]) -> str:
    # Compared without the prefix, which all of them share.
    suffixes = [each.removeprefix(ENVIRONMENT_PREFIX) for each in variables]
    return ENVIRONMENT_PREFIX + nearest(name.removeprefix(ENVIRONMENT_PREFIX).upper(), suffixes)
