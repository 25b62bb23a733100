"""The server's settings: variables, flags, numbers."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from florence2_server.environment import CONFIGS, VARIABLES, check_environment
from florence2_server.server_settings import ServerSettings
from florence2_server.settings import config_of, setting_names, settings_for_model

from tests.deploy.kubernetes.cases import CASES, CHART

pytestmark = pytest.mark.deploy

PORTS = ("http", "grpc", "metrics", "health", "grpc-health")
# Set by other values of the chart.
SET_BY_OTHER_VALUES = {
    "CHECKPOINT",
    "MODELS",
    "MODEL_SETTINGS",
    "ADDRESS",
    "HTTP_ADDRESS",
    "HEALTH_ADDRESS",
    "HTTP_PORT",
    "GRPC_PORT",
    "METRICS_PORT",
    "HEALTH_PORT",
    "GRPC_HEALTH_PORT",
    "EXIT_TIMEOUT_SECONDS",
    "REQUIRE_GPU",
    "RESTRICTED_PROTOCOL_KEY",
    "RESTRICTED_PROTOCOL_KEY_FILE",
    "GRPC_TLS_CERTIFICATE",
    "GRPC_TLS_KEY",
    "GRPC_TLS_CLIENT_AUTHORITY",
}


def model_settings() -> set[str]:
    """Return the settings of a model, without FLORENCE2_."""
    return {name.upper() for name in setting_names(*CONFIGS)}


def known_settings() -> set[str]:
    """Return the settings of a model and of the whole server, without FLORENCE2_."""
    return model_settings() | {name.removeprefix("FLORENCE2_") for name in VARIABLES}


def with_adapters_in(folder: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """The server's variables with a folder that exists here instead of `/adapters`, the mount of the pod."""
    here = {name: re.sub(r"(^|=)/adapters\b", rf"\1{folder}", value) for name, value in variables.items()}
    for found in re.findall(rf"{folder}\S*", " ".join(here.values())):
        Path(found).mkdir(parents=True, exist_ok=True)
    return here


def test_the_server_accepts_every_variable(release, tmp_path):
    environment = with_adapters_in(tmp_path / "adapters", release.environment)
    check_environment(environment)
    server = ServerSettings(environment)
    ports = (server.ports.http, server.ports.grpc, server.ports.metrics, server.ports.health, server.ports.grpc_health)
    assert release.ports.items() <= dict(zip(PORTS, ports, strict=True)).items()
    assert server.hosts.health == server.hosts.grpc
    models = release.values.get("models") or [{"name": "florence2"}]
    served = server.served_models()
    assert [model.name for model in served] == [model["name"] for model in models]
    for model, values in zip(served, models, strict=True):
        settings = settings_for_model(model.settings, environment, Path(), setting_names(*CONFIGS))
        configs = [config_of(config_type, settings) for config_type in CONFIGS]
        found = {name: value for config in configs for name, value in vars(config).items()}
        assert values.get("settings", {}).items() <= found.items()


def test_every_setting_is_in_the_schema():
    """A new setting of the server belongs in values.schema.json too."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    listed = {name.upper() for name in schema["definitions"]["settings"]["properties"]}
    assert listed == known_settings() - SET_BY_OTHER_VALUES
    not_of_a_model = schema["definitions"]["settingsOfOneModel"]["propertyNames"]["not"]["enum"]
    assert {name.upper() for name in not_of_a_model} == listed - model_settings()


def test_no_variable_is_set_twice(release):
    for container in release.containers:
        found = [each["name"] for each in container["env"]]
        assert len(found) == len(set(found))


def test_integers_are_rendered_unchanged(releases):
    environment = releases["settings"].environment
    assert environment["FLORENCE2_EMBEDDING_CACHE_BYTES"] == "268435456"
    assert environment["FLORENCE2_SLOTS"] == "32"
    assert environment["FLORENCE2_STUCK_SECONDS"] == "90"
    assert environment["FLORENCE2_LOG_REQUESTS"] == "1"


def test_services_of_the_namespace_do_not_set_variables(release):
    """A Service called florence2-http would set FLORENCE2_HTTP_PORT, to tcp://..."""
    assert release.pod["enableServiceLinks"] is False


def test_additional_flags_and_variables_reach_the_server(releases):
    assert releases["settings"].server["args"] == ["--log-info=true"]
    assert releases["settings"].environment["OMP_NUM_THREADS"] == "4"


def test_variables_can_come_from_config_maps_secrets_and_fields(releases, render):
    server = releases["additions"].server
    assert server["envFrom"] == [{"configMapRef": {"name": "proxies"}}]
    assert {"name": "REGION", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}} in server["env"]
    secret = [{"secretRef": {"name": "keys", "optional": True}}]
    assert render({"extraEnvironmentFrom": secret}).server["envFrom"] == secret


def test_optional_objects_are_rendered_only_if_enabled(releases):
    switched = {
        "NetworkPolicy": ("no test", "no network policy"),
        "GRPCRoute": ("gateway", "defaults"),
        "HTTPRoute": ("gateway", "gateway for gRPC only"),
        "Ingress": ("ingress for gRPC with TLS to the pods", "defaults"),
        "Pod": ("defaults", "no test"),
        "PodDisruptionBudget": ("defaults", "no disruption budget"),
        "ServiceAccount": ("defaults", "existing service account"),
        "HorizontalPodAutoscaler": ("HPA", "KEDA"),
        "ScaledObject": ("KEDA", "HPA"),
        "ServiceMonitor": ("monitoring", "defaults"),
        "PrometheusRule": ("monitoring", "defaults"),
        "ConfigMap": ("monitoring", "defaults"),
    }
    for kind, (on, off) in switched.items():
        assert len(releases[on].kind(kind)) == 1, kind
        assert releases[off].kind(kind) == [], kind


def test_placement_values_are_passed_through(releases):
    values, pod = CASES["placed"], releases["placed"].pod
    for name in (
        "imagePullSecrets",
        "nodeSelector",
        "tolerations",
        "affinity",
        "topologySpreadConstraints",
        "runtimeClassName",
        "priorityClassName",
    ):
        assert pod[name] == values[name], name
    assert "topologySpreadConstraints" not in releases["no spread"].pod
    assert releases["placed"].pod_labels["example.com/team"] == "vision"
