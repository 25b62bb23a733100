"""What `helm test` runs: it is let in, is as restricted as the server, and has what TLS needs."""

import subprocess
import sys

import pytest
from florence2_server.tritonserver import Ports

from tests.deploy.kubernetes.cases import CASES, NAME, NAMESPACE
from tests.deploy.kubernetes.rendering import Release, selectors, selects

pytestmark = pytest.mark.deploy

TLS = "/etc/florence2/tls"
CLIENT = "/etc/florence2/client"


def pod(release: Release) -> dict:
    return release.one("Pod")


def client(release: Release) -> dict:
    (container,) = pod(release)["spec"]["containers"]
    return dict(container)


def options(release: Release) -> list[str]:
    """The arguments after the script."""
    program, flag, script, *arguments = client(release)["command"]
    assert (program, flag) == ("python", "-c")
    compile(script, "release_test.py", "exec")
    return arguments


def test_it_is_a_hook_of_helm_test_whose_log_stays_if_it_fails(releases):
    assert pod(releases["defaults"])["metadata"]["annotations"] == {
        "helm.sh/hook": "test",
        "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded",
    }
    assert pod(releases["defaults"])["spec"]["restartPolicy"] == "Never"


def test_it_sends_requests_to_the_service(releases):
    release = releases["settings"]
    (grpc,) = [
        (service["metadata"]["name"], port["port"])
        for service in release.kind("Service")
        for port in service["spec"]["ports"]
        if port["name"] == "grpc" and service["spec"].get("clusterIP") != "None"
    ]
    assert options(release) == [f"--url={grpc[0]}.{NAMESPACE}.svc:{grpc[1]}", "--model=florence2"]
    assert client(release)["image"] == release.server["image"]


def test_it_sends_a_request_to_each_model(releases):
    assert [each for each in options(releases["models, hub"]) if each.startswith("--model")] == [
        "--model=captions",
        "--model=documents-2",
    ]


def test_no_service_sends_it_requests_and_no_policy_of_the_server_is_for_it(releases):
    for case, release in releases.items():
        for each in release.kind("Pod"):
            assert not any(selects(selector, each["metadata"]["labels"]) for selector in selectors(release)), case


def test_the_policies_let_it_reach_the_server_and_nothing_else(releases):
    """Also if no client is allowed, and if the namespace denies all traffic."""
    for case in ("defaults", "no clients but the test", "load balancer"):
        release = releases[case]
        labels = pod(release)["metadata"]["labels"]
        server, own = sorted(release.kind("NetworkPolicy"), key=lambda each: each["metadata"]["name"])
        rule = server["spec"]["ingress"][0]
        peers = [peer["podSelector"].get("matchLabels", {}) for peer in rule["from"] if "podSelector" in peer]
        assert any(selects(peer, labels) for peer in peers), case
        assert {"port": "grpc", "protocol": "TCP"} in rule["ports"]
        assert selects(own["spec"]["podSelector"]["matchLabels"], labels)
        to_server, to_dns = own["spec"]["egress"]
        (peer,) = to_server["to"]
        assert selects(peer["podSelector"]["matchLabels"], release.pod_labels)
        assert [port["port"] for port in to_server["ports"]] == ["grpc"]
        assert {port["port"] for port in to_dns["ports"]} == {53}
        assert own["spec"]["ingress"] == []


def test_it_is_as_restricted_as_the_server(releases):
    for case, release in releases.items():
        for each in release.kind("Pod"):
            security = release.pod["securityContext"].items()
            assert each["spec"]["securityContext"].items() <= security, case
            assert client(release)["securityContext"] == release.server["securityContext"], case
            assert each["spec"]["automountServiceAccountToken"] is False
            assert each["spec"].get("imagePullSecrets") == release.pod.get("imagePullSecrets")
            assert not any("nvidia.com/" in name for name in client(release)["resources"]["limits"])


def test_with_tls_it_trusts_the_authority_and_does_not_see_the_servers_key(releases):
    release = releases["TLS"]
    assert f"--authority={TLS}/ca.crt" in options(release)
    assert not any(each.startswith(("--key", "--certificate", "--server-name")) for each in options(release))
    (volume,) = [each for each in pod(release)["spec"]["volumes"] if each["name"] == "tls"]
    assert volume["secret"]["secretName"] == "grpc-tls"
    assert volume["secret"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]


def test_with_mutual_tls_it_presents_the_clients_certificate(releases):
    release = releases["mutual TLS with a client for the test"]
    assert {f"--key={CLIENT}/tls.key", f"--certificate={CLIENT}/tls.crt"} <= set(options(release))
    assert "--server-name=florence.example.com" in options(release)
    mounts = {mount["name"]: mount for mount in client(release)["volumeMounts"]}
    assert (mounts["client"]["mountPath"], mounts["client"]["readOnly"]) == (CLIENT, True)


def test_without_a_client_mutual_tls_has_no_test(releases, render):
    assert releases["mutual TLS"].kind("Pod") == []
    assert [each["metadata"]["name"] for each in releases["mutual TLS"].kind("NetworkPolicy")] == [
        f"{NAME}-florence2-triton"
    ]
    assert render(CASES["no test"]).kind("Pod") == []


def test_it_fails_with_a_reason_if_nothing_answers(releases):
    """The tests of the images run it where something does."""
    command = [sys.executable, *client(releases["defaults"])["command"][1:3]]
    url = f"127.0.0.1:{Ports.free().grpc}"
    done = subprocess.run([*command, f"--url={url}", "--model=florence2"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"florence2 at {url} is not ready" in done.stderr
