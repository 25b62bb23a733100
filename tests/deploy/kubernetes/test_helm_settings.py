"""What the server is told: variables, flags, numbers."""

import json
import re

import pytest

from tests.deploy.kubernetes.rendering import CASES, CHART, ROOT

pytestmark = pytest.mark.deploy

MODEL_CONFIG = ROOT / "model_repository" / "florence2" / "config.pbtxt"
ENTRYPOINT = ROOT / "docker" / "entrypoint.py"
# Settings of the chart's own making: other values decide them.
DECIDED_ELSEWHERE = {
    "CHECKPOINT",
    "ADDRESS",
    "HTTP_ADDRESS",
    "HTTP_PORT",
    "GRPC_PORT",
    "METRICS_PORT",
    "EXIT_TIMEOUT_SECONDS",
    "REQUIRE_GPU",
    "RESTRICTED_PROTOCOL_KEY",
    "RESTRICTED_PROTOCOL_KEY_FILE",
    "GRPC_TLS_CERTIFICATE",
    "GRPC_TLS_KEY",
    "GRPC_TLS_CLIENT_AUTHORITY",
}
ADAPTER_SETTINGS = {"LOG_REQUESTS"}


def known_settings() -> set[str]:
    """What model and entrypoint read, without FLORENCE2_."""
    parameters = re.findall(r'parameters \{ key: "(\w+)"', MODEL_CONFIG.read_text())
    assert len(parameters) > 10
    entrypoint = re.findall(r'"FLORENCE2_(\w+)"', ENTRYPOINT.read_text())
    assert {"HTTP_PORT", "EXIT_TIMEOUT_SECONDS", "GRPC_TLS_CERTIFICATE"} <= set(entrypoint)
    return {name.upper() for name in parameters} | set(entrypoint) | ADAPTER_SETTINGS


def test_the_server_knows_every_variable(release):
    variables = {name for name in release.environment if name.startswith("FLORENCE2_")}
    assert variables <= {f"FLORENCE2_{name}" for name in known_settings()}


def test_every_setting_can_be_set():
    """A setting that is new to the server is new to values.schema.json too."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    listed = {name.upper() for name in schema["properties"]["settings"]["properties"]}
    assert listed == known_settings() - DECIDED_ELSEWHERE


def test_no_variable_is_set_twice(release):
    for container in release.containers:
        found = [each["name"] for each in container["env"]]
        assert len(found) == len(set(found))


def test_numbers_arrive_as_they_were_written(releases):
    environment = releases["settings"].environment
    assert environment["FLORENCE2_EMBEDDING_CACHE_BYTES"] == "268435456"
    assert environment["FLORENCE2_SLOTS"] == "32"
    assert environment["FLORENCE2_STUCK_SECONDS"] == "90"
    assert environment["FLORENCE2_LOG_REQUESTS"] == "1"


def test_services_of_the_namespace_do_not_become_settings(release):
    """A Service called florence2-http would set FLORENCE2_HTTP_PORT, to tcp://..."""
    assert release.pod["enableServiceLinks"] is False


def test_more_flags_and_variables_reach_the_server(releases):
    assert releases["settings"].server["args"] == ["--log-info=true"]
    assert releases["settings"].environment["OMP_NUM_THREADS"] == "4"


def test_switches_switch(releases):
    switched = {
        "NetworkPolicy": ("defaults", "no network policy"),
        "PodDisruptionBudget": ("defaults", "no disruption budget"),
        "ServiceAccount": ("defaults", "somebody's service account"),
        "HorizontalPodAutoscaler": ("HPA", "KEDA"),
        "ScaledObject": ("KEDA", "HPA"),
        "ServiceMonitor": ("monitoring", "defaults"),
        "PrometheusRule": ("monitoring", "defaults"),
        "ConfigMap": ("monitoring", "defaults"),
    }
    for kind, (on, off) in switched.items():
        assert len(releases[on].kind(kind)) == 1, kind
        assert releases[off].kind(kind) == [], kind


def test_where_pods_go_is_the_users_to_say(releases):
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
