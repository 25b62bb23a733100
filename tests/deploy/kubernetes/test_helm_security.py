"""Pods without rights that they do not need, tokens nowhere but where they are used, closed networks."""

import re

import pytest

from tests.deploy.kubernetes.rendering import merged

pytestmark = pytest.mark.deploy

USER = 1000


def test_nothing_runs_as_root_or_may_become_it(release):
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


def test_there_is_no_token_of_kubernetes(release):
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


def test_the_hubs_token_is_the_init_containers_alone(releases):
    release = releases["weights from a private repository, kept on a claim"]
    (init,) = release.pod["initContainers"]
    (mount,) = [mount for mount in init["volumeMounts"] if mount["name"] == "hub-token"]
    assert {"name": "HF_TOKEN_PATH", "value": f"{mount['mountPath']}/token"} in init["env"]
    assert "hub-token" not in {mount["name"] for mount in release.server["volumeMounts"]}


def test_who_is_let_in_and_out(releases):
    policy = releases["defaults"].one("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    callers, monitoring = policy["ingress"]
    assert [port["port"] for port in callers["ports"]] == ["http", "grpc"]
    assert callers["from"] == [{"podSelector": {}}]
    assert [port["port"] for port in monitoring["ports"]] == ["metrics"]
    assert monitoring["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    assert policy["egress"] == []
    assert releases["nobody let in"].one("NetworkPolicy")["spec"]["ingress"] == []


def test_every_rule_of_ingress_says_from_whom(release):
    """One without `from` would be for everybody."""
    for policy in release.kind("NetworkPolicy"):
        assert all(rule["from"] for rule in policy["spec"]["ingress"])


def test_pods_may_call_out_only_for_weights_or_where_they_are_told_to(releases):
    for case, release in releases.items():
        for policy in release.kind("NetworkPolicy"):
            out = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
            source = release.values.get("weights", {}).get("source", "baked")
            expected = {53, 443} if source in ("hub", "objectStore") else set()
            assert out == (expected or ({53, 4318} if case == "a collector let out to" else set())), case


def test_images_are_pinned(render):
    plain = render(merged({}, {"image": {"digest": "", "tag": "1.2.3"}})).server["image"]
    assert plain == "florence2-triton:1.2.3"
    assert re.fullmatch(r"florence2-triton:[\d.]+@sha256:5{64}", render({}).server["image"])
