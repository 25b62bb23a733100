"""Names, labels, selectors, services and ports."""

import re

import pytest

from tests.deploy.kubernetes.cases import CASES, NAME, NAMESPACE
from tests.deploy.kubernetes.rendering import selectors, selects

pytestmark = pytest.mark.deploy


def test_names_are_valid_and_unique(release):
    found = [(each["kind"], each["metadata"]["name"]) for each in release.objects]
    assert len(found) == len(set(found))
    for each in release.objects:
        assert re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", each["metadata"]["name"])
        assert each["metadata"]["namespace"] == NAMESPACE


def test_every_selector_matches_the_pods(release):
    assert len(list(selectors(release))) >= 3
    assert all(selects(selector, release.pod_labels) for selector in selectors(release))
    for spread in release.pod.get("topologySpreadConstraints", []):
        assert selects(spread["labelSelector"]["matchLabels"], release.pod_labels)


def test_two_releases_do_not_share_anything(render):
    one, other = render(CASES["HPA"]), render(CASES["HPA"], name="grounding")
    assert not any(selects(selector, other.pod_labels) for selector in selectors(one))
    assert not {each["metadata"]["name"] for each in one.objects} & {each["metadata"]["name"] for each in other.objects}


def test_ports_are_the_same_everywhere(release):
    assert release.ports["grpc"] == int(release.environment["FLORENCE2_GRPC_PORT"])
    assert release.ports["metrics"] == int(release.environment["FLORENCE2_METRICS_PORT"])
    assert release.ports.get("http", -1) in (-1, int(release.environment["FLORENCE2_HTTP_PORT"]))
    assert release.ports.get("health", 0) == int(release.environment["FLORENCE2_HEALTH_PORT"])
    assert release.ports.get("grpc-health", 0) == int(release.environment["FLORENCE2_GRPC_HEALTH_PORT"])
    for service in release.kind("Service"):
        for port in service["spec"]["ports"]:
            assert port["port"] == release.ports[port["targetPort"]]
    for policy in release.policies:
        for rule in policy["spec"]["ingress"]:
            assert all(port["port"] in release.ports for port in rule["ports"])


def test_one_service_balances_and_one_is_headless(release):
    balancing, headless = sorted(release.kind("Service"), key=lambda each: each["spec"].get("clusterIP", ""))
    assert {port["name"] for port in balancing["spec"]["ports"]} == {"http", "grpc"} & set(release.ports)
    assert (headless["spec"]["type"], headless["spec"]["clusterIP"]) == ("ClusterIP", "None")
    assert [port["name"] for port in headless["spec"]["ports"]] == ["grpc", "metrics"]
    assert not headless["spec"].get("publishNotReadyAddresses")


def test_http_is_closed_if_grpc_has_tls(releases):
    for case in ("TLS", "mutual TLS", "no HTTP"):
        assert releases[case].environment["FLORENCE2_HTTP_ADDRESS"] == "127.0.0.1", case
        assert "http" not in releases[case].ports, case
        assert "port: http" not in releases[case].text, case
    assert releases["defaults"].environment["FLORENCE2_HTTP_ADDRESS"] == "0.0.0.0"  # noqa: S104
    assert "http" in releases["defaults"].ports


def test_every_service_listens_on_the_given_address(releases):
    environment = releases["IPv6"].environment
    assert (environment["FLORENCE2_ADDRESS"], environment["FLORENCE2_HTTP_ADDRESS"]) == ("::", "::")
    assert "FLORENCE2_HEALTH_ADDRESS" not in environment, "the same"


def test_pod_labels_of_the_user_cannot_override_the_selectors(render):
    mine = {"podLabels": {"app.kubernetes.io/instance": "other"}}
    assert render(mine).pod_labels["app.kubernetes.io/instance"] == NAME
