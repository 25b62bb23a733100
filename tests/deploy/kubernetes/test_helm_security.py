"""Least privilege for pods, secrets only where they are used, closed networks."""

import re

import pytest

from tests.deploy.kubernetes.cases import merged

pytestmark = pytest.mark.deploy

USER = 1000


def test_no_container_runs_as_root_or_can_become_root(release):
    security = release.pod["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"], security["fsGroup"]) == (USER, USER, USER)
    assert security["runAsNonRoot"] is True
    for container in release.containers:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }


def test_nothing_of_the_host_is_shared(release):
    assert not {"hostNetwork", "hostPID", "hostIPC"} & release.pod.keys()
    assert not any("hostPath" in volume for volume in release.pod["volumes"])


def test_no_kubernetes_token_is_mounted(release):
    assert release.pod["automountServiceAccountToken"] is False
    for account in release.kind("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
        assert account["metadata"]["name"] == release.pod["serviceAccountName"]


def test_no_secret_is_rendered_or_put_into_the_environment(release):
    assert release.kind("Secret") == []
    assert "secretKeyRef" not in release.text
    for container in release.containers:
        secrets = {volume["name"] for volume in release.pod["volumes"] if "secret" in volume}
        assert all(mount["readOnly"] for mount in container["volumeMounts"] if mount["name"] in secrets)


def test_only_the_init_container_gets_the_hubs_token(releases):
    release = releases["weights from a private repository, kept on a claim"]
    (init,) = release.pod["initContainers"]
    (mount,) = [mount for mount in init["volumeMounts"] if mount["name"] == "hub-token"]
    assert {"name": "HF_TOKEN_PATH", "value": f"{mount['mountPath']}/token"} in init["env"]
    assert "hub-token" not in {mount["name"] for mount in release.server["volumeMounts"]}


def test_the_network_policy_allows_callers_and_monitoring(releases):
    (policy,) = [each["spec"] for each in releases["defaults"].policies]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    callers, monitoring = policy["ingress"]
    assert [port["port"] for port in callers["ports"]] == ["http", "grpc"]
    assert callers["from"][0] == {"podSelector": {}}
    assert [port["port"] for port in monitoring["ports"]] == ["metrics", "health", "grpc-health"]
    assert monitoring["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    assert policy["egress"] == []
    assert [each["spec"]["ingress"] for each in releases["no ingress"].policies] == [[]]


def test_every_ingress_rule_names_its_peers(release):
    """A rule without `from` would allow everyone."""
    for policy in release.kind("NetworkPolicy"):
        assert all(rule["from"] for rule in policy["spec"]["ingress"])


def test_egress_is_allowed_only_for_weights_and_configured_peers(releases):
    for case, release in releases.items():
        for policy in release.policies:
            out = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
            source = release.values.get("weights", {}).get("source", "baked")
            expected = {53, 443} if source in ("hub", "objectStore") else set()
            assert out == (expected or ({53, 4318} if case == "egress to a collector" else set())), case


def test_containers_of_the_user_are_as_restricted_as_the_server(releases):
    pod = releases["additions"].pod
    (init,), (beside,) = (
        [each for each in pod[kind] if each["name"] != "server"] for kind in ("initContainers", "containers")
    )
    for container in (init, beside):
        assert container["securityContext"] == releases["additions"].server["securityContext"]


def test_a_security_context_of_the_user_is_kept(render):
    own = {"runAsUser": 2000, "runAsNonRoot": True}
    container = {"name": "proxy", "image": "example.com/proxy:1.2.3", "securityContext": own}
    (found,) = [each for each in render({"extraContainers": [container]}).pod["containers"] if each["name"] == "proxy"]
    assert found == container


def test_images_are_pinned(render):
    plain = render(merged({}, {"image": {"digest": "", "tag": "1.2.3"}})).server["image"]
    assert plain == "florence2-triton:1.2.3"
    assert re.fullmatch(r"florence2-triton:[\d.]+@sha256:5{64}", render({}).server["image"])
