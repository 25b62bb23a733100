"""The web server in the chart: off by default, least privilege, its own probes, limits and network."""

import inspect
import re
from pathlib import PurePosixPath

import pytest
import yaml

from tests.deploy.kubernetes.cases import CASES, CHART, DIGEST, NAME, NAMESPACE, Object, merged
from tests.deploy.kubernetes.rendering import Release, selects

pytestmark = pytest.mark.deploy

WEB = [case for case in CASES if case.startswith("web")]
SERVICE = f"{NAME}-florence2-triton-web"
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())


@pytest.fixture(params=WEB)
def web(request, releases) -> Release:
    """Each case that has a web server."""
    return releases[request.param]


def the(release: Release, kind: str) -> Object:
    """The web server's only object of a kind."""
    (found,) = release.web(kind)
    return dict(found)


def pod_of(release: Release) -> Object:
    return dict(the(release, "Deployment")["spec"]["template"]["spec"])


def labels_of(release: Release) -> dict[str, str]:
    return dict(the(release, "Deployment")["spec"]["template"]["metadata"]["labels"])


def container_of(release: Release) -> Object:
    (found,) = pod_of(release)["containers"]
    return dict(found)


def options_of(release: Release) -> dict[str, list[str]]:
    """The values of each option of the command."""
    found: dict[str, list[str]] = {}
    for argument in container_of(release)["args"]:
        name, _, value = argument.partition("=")
        found.setdefault(name, []).append(value)
    return found


def values_of(release: Release) -> Object:
    return dict(merged(DEFAULTS, release.values))


def mebibytes(quantity: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()
    return int(number) * (1024 if unit == "Gi" else 1)


def test_without_it_nothing_of_it_is_rendered(releases):
    for case, release in releases.items():
        assert case in WEB or not any(release.web(kind) for kind in ("Deployment", "Service", "NetworkPolicy")), case
        assert case in WEB or "-web" not in release.text, case


def test_it_is_as_restricted_as_the_server(web):
    pod, server = pod_of(web), web.pod
    for field in ("securityContext", "serviceAccountName", "automountServiceAccountToken", "enableServiceLinks"):
        assert pod[field] == server[field], field
    assert pod.get("imagePullSecrets") == server.get("imagePullSecrets")
    assert container_of(web)["securityContext"] == web.server["securityContext"]
    assert not {"hostNetwork", "hostPID", "hostIPC", "runtimeClassName"} & pod.keys()
    assert all(set(volume) & {"emptyDir", "secret"} for volume in pod["volumes"])
    assert not any("nvidia.com" in name for name in container_of(web)["resources"]["limits"])


def test_no_service_of_the_server_selects_it_and_its_own_does(web):
    labels = labels_of(web)
    for service in web.kind("Service"):
        assert not selects(service["spec"]["selector"], labels)
    (policy,) = web.policies or [None]
    assert policy is None or not selects(policy["spec"]["podSelector"]["matchLabels"], labels)
    assert selects(the(web, "Service")["spec"]["selector"], labels)
    assert not selects(the(web, "Service")["spec"]["selector"], web.pod_labels)
    assert selects(the(web, "Deployment")["spec"]["selector"]["matchLabels"], labels)
    for spread in pod_of(web)["topologySpreadConstraints"]:
        assert selects(spread["labelSelector"]["matchLabels"], labels)


def test_two_releases_do_not_share_it(render):
    one, other = render(CASES["web"]), render(CASES["web"], name="grounding")
    assert not selects(the(one, "Service")["spec"]["selector"], labels_of(other))


def test_the_port_is_the_same_everywhere(web):
    (named,) = container_of(web)["ports"]
    (served,) = the(web, "Service")["spec"]["ports"]
    assert options_of(web)["--port"] == [str(named["containerPort"])] == [str(served["port"])]
    assert served["targetPort"] == named["name"]
    assert named["containerPort"] == values_of(web)["web"]["port"]


def test_the_command_has_every_option_that_the_chart_gives(web):
    from florence2.cli.web_command import web as command

    names = {
        flag
        for parameter in inspect.signature(command).parameters.values()
        for option in getattr(parameter.annotation, "__metadata__", ())
        for flag in (option.param_decls or [f"--{parameter.name.replace('_', '-')}"])
    }
    assert set(options_of(web)) <= names


def test_requests_go_to_every_ready_pod_of_the_server(web):
    (headless,) = [each for each in web.kind("Service") if each["spec"].get("clusterIP") == "None"]
    host, port = headless["metadata"]["name"], web.ports["grpc"]
    assert options_of(web)["--url"] == [f"dns:///{host}.{NAMESPACE}.svc:{port}"]
    assert port in {each["port"] for each in headless["spec"]["ports"]}


def test_it_serves_each_model(releases):
    assert options_of(releases["web"])["--model"] == ["florence2"]
    assert options_of(releases["web, models"])["--model"] == ["captions", "documents-2"]


def test_the_values_become_options(releases):
    options = options_of(releases["web, all values"])
    assert {name: options[name] for name in sorted(set(options) - {"--url", "--model", "--port"})} == {
        "--allow-origin": ["https://app.example.com"],
        "--api-keys": ["/etc/florence2/api-keys/keys.txt"],
        "--concurrency": ["8"],
        "--drain": ["30"],
        "--header": ["x-tenant=web"],
        "--host": ["0.0.0.0"],  # noqa: S104
        "--max-body-bytes": ["1000000"],
        "--max-pixels": ["50000000"],
        "--timeout": ["30"],
    }
    assert options_of(releases["web, IPv6 and another port"])["--host"] == ["::"]


def test_files_that_options_name_are_mounted_read_only_from_secrets(web):
    secrets = {
        volume["name"]: volume["secret"]["secretName"] for volume in pod_of(web)["volumes"] if "secret" in volume
    }
    mounts = {mount["mountPath"]: mount for mount in container_of(web)["volumeMounts"] if mount["name"] in secrets}
    files = [value for values in options_of(web).values() for value in values if value.startswith("/")]
    assert {str(PurePosixPath(file).parent) for file in files} == set(mounts)
    # As a folder: a file of a subPath would not follow a Secret that changes.
    assert all(mount["readOnly"] and "subPath" not in mount for mount in mounts.values())
    assert web.web("Secret") == []


def test_with_tls_it_trusts_the_authority_and_does_not_see_the_servers_key(releases):
    for case, name in (
        ("web, TLS", f"{NAME}-florence2-triton.{NAMESPACE}.svc"),
        ("web, mutual TLS", "florence.example.com"),
    ):
        options = options_of(releases[case])
        assert options["--tls-root-certificates"] == ["/etc/florence2/tls/ca.crt"]
        assert options["--tls-server-name"] == [name]
        (volume,) = [each for each in pod_of(releases[case])["volumes"] if each["name"] == "tls"]
        assert volume["secret"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]
    assert "--tls-private-key" not in options_of(releases["web, TLS"])
    assert options_of(releases["web, mutual TLS"])["--tls-private-key"] == ["/etc/florence2/client/tls.key"]


def test_readiness_depends_on_the_server_and_liveness_does_not(web):
    container = container_of(web)
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/live", "readiness": "/ready", "liveness": "/live"}
    (port,) = container["ports"]
    for name in paths:
        probe = container[f"{name}Probe"]
        assert probe["httpGet"]["port"] == port["name"]
        assert probe["timeoutSeconds"] <= probe["periodSeconds"]


def test_a_stopping_pod_lets_requests_in_work_finish(web):
    pause = container_of(web)["lifecycle"]["preStop"]["sleep"]["seconds"]
    (drain,) = options_of(web)["--drain"]
    assert pause > 0
    assert int(drain) >= values_of(web)["web"]["timeoutSeconds"]
    assert pod_of(web)["terminationGracePeriodSeconds"] >= pause + int(drain) + 5


def test_a_rollout_waits_for_it_as_long_as_for_the_server(web):
    seconds = [each["spec"]["progressDeadlineSeconds"] for each in (web.deployment, the(web, "Deployment"))]
    assert seconds[0] == seconds[1]


def test_memory_is_enough_for_the_bodies_of_all_requests_in_work(releases, render):
    """Six times these bodies, plus the process: measured with uploads of 32 MiB, as forms and as JSON."""
    for values in (CASES["web"], merged(CASES["web"], {"web": {"concurrency": 100, "maxBodyBytes": 50_000_001}})):
        release = render(values)
        web = values_of(release)["web"]
        bodies = web["concurrency"] * web["maxBodyBytes"] / (1 << 20)
        limit = mebibytes(container_of(release)["resources"]["limits"]["memory"])
        assert 0 <= limit - 6 * bodies - 256 < 1
        (files,) = [each for each in pod_of(release)["volumes"] if each["name"] == "temporary-files"]
        assert files["emptyDir"]["medium"] == "Memory"
    assert container_of(releases["web, all values"])["resources"]["limits"] == {"cpu": "2", "memory": "1Gi"}


def test_the_network_policy_lets_it_reach_the_server_and_dns_only(web):
    if not web.policies:
        assert web.web("NetworkPolicy") == []
        return
    policy = the(web, "NetworkPolicy")["spec"]
    assert selects(policy["podSelector"]["matchLabels"], labels_of(web))
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    to_server, to_dns = policy["egress"]
    (peer,) = to_server["to"]
    assert selects(peer["podSelector"]["matchLabels"], web.pod_labels)
    assert to_server["ports"] == [{"port": "grpc", "protocol": "TCP"}]
    assert to_dns["to"] == DEFAULTS["networkPolicy"]["dns"]
    assert {port["port"] for port in to_dns["ports"]} == {53}


def test_the_servers_network_policy_lets_it_in(web):
    for policy in web.policies:
        rule = policy["spec"]["ingress"][0]
        peers = [peer["podSelector"].get("matchLabels") for peer in rule["from"] if "podSelector" in peer]
        assert any(selects(peer, labels_of(web)) for peer in peers if peer)
        assert {"port": "grpc", "protocol": "TCP"} in rule["ports"]


def test_its_network_policy_admits_its_clients_and_the_namespaces_of_its_routes(releases):
    admitted = {
        case: the(releases[case], "NetworkPolicy")["spec"]["ingress"] for case in WEB if releases[case].policies
    }
    everyone = {"podSelector": {}}
    namespaces = {
        case: {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
        for case, namespace in (("gateway", "gateways"), ("ingress", "ingress-nginx"))
    }
    port = [{"port": "web", "protocol": "TCP"}]
    assert admitted["web"] == [{"from": [everyone], "ports": port}]
    assert admitted["web, all values"] == []
    assert admitted["web, gateway"] == [{"from": [everyone, namespaces["gateway"]], "ports": port}]
    assert admitted["web, ingress"] == [{"from": [everyone, namespaces["ingress"]], "ports": port}]
    assert admitted["web, nothing else reachable"] == [{"from": [namespaces["gateway"]], "ports": port}]


def test_a_route_to_it_alone_opens_the_server_to_nothing_else(releases):
    release = releases["web, nothing else reachable"]
    (policy,) = release.policies
    callers = policy["spec"]["ingress"][0]["from"]
    assert [selects(peer["podSelector"]["matchLabels"], labels_of(release)) for peer in callers] == [True]
    assert [each["metadata"]["name"] for each in release.objects if each["kind"].endswith("Route")] == [SERVICE]


def test_routes_lead_to_it(releases):
    route = the(releases["web, gateway"], "HTTPRoute")["spec"]
    (port,) = the(releases["web, gateway"], "Service")["spec"]["ports"]
    assert route["hostnames"] == ["page.example.com"]
    (rule,) = route["rules"]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/"}}]
    assert rule["backendRefs"] == [{"name": SERVICE, "port": port["port"]}]
    ingress = the(releases["web, ingress"], "Ingress")
    (rule,) = ingress["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert (rule["host"], path["path"]) == ("page.example.com", "/")
    assert path["backend"]["service"] == {"name": SERVICE, "port": {"name": port["name"]}}
    assert ingress["spec"]["tls"] == [{"hosts": ["page.example.com"], "secretName": "ingress-tls"}]
    assert ingress["metadata"]["annotations"] == {"nginx.ingress.kubernetes.io/proxy-body-size": "32m"}


def test_only_more_than_one_pod_has_a_disruption_budget(releases, render):
    assert the(releases["web"], "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert releases["web, all values"].web("PodDisruptionBudget") == []
    off = {"podDisruptionBudget": {"enabled": False}}
    assert render(merged(CASES["web"], off)).web("PodDisruptionBudget") == []


def test_its_image_is_pinned_and_its_pods_are_placed_by_its_own_values(releases, render):
    assert container_of(releases["web"])["image"].endswith(f"@{DIGEST}")
    own = {"web": {"image": {"repository": "example.com/web", "tag": "1.2.3", "digest": ""}}}
    assert container_of(render(merged(CASES["web"], own)))["image"] == "example.com/web:1.2.3"
    release = releases["web, all values"]
    pod, web = pod_of(release), CASES["web, all values"]["web"]
    assert {name: pod[name] for name in ("nodeSelector", "tolerations", "affinity")} == {
        name: web[name] for name in ("nodeSelector", "tolerations", "affinity")
    }
    assert labels_of(release)["app.kubernetes.io/instance"] == NAME, "not the user's"
    assert labels_of(release)["example.com/team"] == "vision"
    placed = render(merged(CASES["placed"], CASES["web"]))
    assert not {"nodeSelector", "tolerations", "affinity"} & pod_of(placed).keys(), "those of the server's GPUs"
