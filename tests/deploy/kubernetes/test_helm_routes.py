"""Ways into the cluster: routes of the Gateway API, Ingress, types of the Service; the network policy allows each."""

import jsonschema
import pytest
from tritonclient.grpc import service_pb2

from tests.deploy.kubernetes.cases import CASES, NAME, merged
from tests.deploy.kubernetes.rendering import Release

pytestmark = pytest.mark.deploy

SERVICE = f"{NAME}-florence2-triton"
NAMES = {"type": "array", "minItems": 1, "items": {"type": "string", "maxLength": 253}}


def strict(required: dict, optional: dict | None = None) -> dict:
    """A schema of an object with these fields and no others."""
    properties = {**required, **(optional or {})}
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": properties}


def route_schema(kind: str, match: dict) -> dict:
    """The part of the Gateway API's definition of a route, version 1, that the chart uses."""
    text, port = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 1, "maximum": 65535}
    parent = strict({"name": text}, {"namespace": text, "sectionName": text, "port": port, "kind": text, "group": text})
    rule = strict(
        {
            "matches": {"type": "array", "minItems": 1, "items": match},
            "backendRefs": {"type": "array", "minItems": 1, "items": strict({"name": text, "port": port})},
        }
    )
    spec = strict(
        {
            "parentRefs": {"type": "array", "minItems": 1, "items": parent},
            "hostnames": NAMES,
            "rules": {"type": "array", "minItems": 1, "items": rule},
        }
    )
    version = {"const": "gateway.networking.k8s.io/v1"}
    return strict({"apiVersion": version, "kind": {"const": kind}, "metadata": {"type": "object"}, "spec": spec})


METHOD = strict({"method": strict({"type": {"enum": ["Exact", "RegularExpression"]}, "service": {"type": "string"}})})
PATH = strict({"path": strict({"type": {"enum": ["Exact", "PathPrefix"]}, "value": {"pattern": "^/"}})})
SCHEMAS = {"GRPCRoute": route_schema("GRPCRoute", METHOD), "HTTPRoute": route_schema("HTTPRoute", PATH)}


def service(release: Release) -> dict:
    """The Service that is not headless."""
    (found,) = [each for each in release.kind("Service") if each["spec"].get("clusterIP") != "None"]
    return dict(found)


def callers(release: Release) -> list[dict]:
    """The peers that the network policy lets send requests."""
    (policy,) = release.policies
    return list(policy["spec"]["ingress"][0]["from"])


@pytest.mark.parametrize("kind", SCHEMAS)
def test_routes_have_the_fields_of_the_gateway_api(releases, kind):
    jsonschema.validate(releases["gateway"].one(kind), SCHEMAS[kind])


def test_routes_lead_to_the_ports_of_the_service(releases):
    release, found = releases["gateway"], service(releases["gateway"])
    ports = {port["name"]: port["port"] for port in found["spec"]["ports"]}
    for kind, port in (("GRPCRoute", "grpc"), ("HTTPRoute", "http")):
        route = release.one(kind)
        (rule,) = route["spec"]["rules"]
        assert rule["backendRefs"] == [{"name": SERVICE, "port": ports[port]}]
        assert route["spec"]["parentRefs"] == CASES["gateway"]["gateway"]["parentRefs"]
        assert route["metadata"]["annotations"] == {"example.com/owner": "vision"}


def test_the_kinds_of_routes_share_no_host_name(releases):
    """A Gateway accepts only one kind for a host name."""
    grpc, http = (set(releases["gateway"].one(kind)["spec"]["hostnames"]) for kind in SCHEMAS)
    assert (grpc, http) == ({"florence.example.com"}, {"florence-http.example.com"})


def test_routes_and_ingress_lead_to_inference_only(releases):
    """The gRPC service that the client calls, and the paths of HTTP that begin with its version."""
    grpc = "inference.GRPCInferenceService"
    assert grpc == service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
    (rule,) = releases["gateway"].one("GRPCRoute")["spec"]["rules"]
    assert [match["method"]["service"] for match in rule["matches"]] == [grpc]
    (rule,) = releases["gateway"].one("HTTPRoute")["spec"]["rules"]
    assert [match["path"]["value"] for match in rule["matches"]] == ["/v2"]
    paths = [
        path["path"]
        for ingress in releases["ingress"].kind("Ingress")
        for rule in ingress["spec"]["rules"]
        for path in rule["http"]["paths"]
    ]
    assert paths == [f"/{grpc}", "/v2"]


def test_an_ingress_has_the_protocol_of_one_backend(releases):
    grpc, http = releases["ingress"].kind("Ingress")
    assert grpc["metadata"]["annotations"] == {"nginx.ingress.kubernetes.io/backend-protocol": "GRPC"}
    assert "annotations" not in http["metadata"]
    for ingress, host, port in ((grpc, "florence.example.com", "grpc"), (http, "florence-http.example.com", "http")):
        (rule,) = ingress["spec"]["rules"]
        (path,) = rule["http"]["paths"]
        assert rule["host"] == host
        assert path["backend"]["service"] == {"name": SERVICE, "port": {"name": port}}
        assert ingress["spec"]["tls"] == [{"hosts": [host], "secretName": "ingress-tls"}]
        assert ingress["spec"]["ingressClassName"] == "nginx"


@pytest.mark.parametrize(("case", "namespace"), [("gateway", "gateways"), ("ingress", "ingress-nginx")])
def test_the_network_policy_allows_the_namespace_of_the_gateway(releases, case, namespace):
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    assert peer in callers(releases[case])
    assert peer not in callers(releases["defaults"])


def test_a_load_balancer_is_open_to_its_ranges_only(releases):
    release = releases["load balancer"]
    spec = service(release)["spec"]
    assert (spec["type"], spec["externalTrafficPolicy"]) == ("LoadBalancer", "Local")
    assert spec["loadBalancerSourceRanges"] == ["203.0.113.0/24"]
    assert {"ipBlock": {"cidr": "203.0.113.0/24"}} in callers(release)


def test_neither_metrics_nor_health_leave_the_cluster(releases):
    for case in ("load balancer", "node port"):
        assert {port["name"] for port in service(releases[case])["spec"]["ports"]} == {"http", "grpc"}, case


def test_a_service_inside_the_cluster_has_no_external_policy(releases):
    assert "externalTrafficPolicy" not in service(releases["defaults"])["spec"]


def test_each_service_has_its_annotations(render):
    annotations = {"service.beta.kubernetes.io/aws-load-balancer-scheme": "internal"}
    own = {"annotations": annotations, "headlessAnnotations": {"prometheus.io/scrape": "true"}}
    release = render(merged(CASES["load balancer"], {"service": own}))
    assert service(release)["metadata"]["annotations"] == annotations
    (headless,) = [each for each in release.kind("Service") if each != service(release)]
    assert headless["metadata"]["annotations"] == {"prometheus.io/scrape": "true"}
