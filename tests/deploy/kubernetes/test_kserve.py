"""The KServe example: valid in Kubernetes, and as KServe's documentation requires."""

import pytest
import yaml

from tests.deploy.kubernetes.cases import ROOT, Object

pytestmark = pytest.mark.deploy

FOLDER = ROOT / "docker" / "kserve"
KUBERNETES = "1.37"
# KServe's fields, in addition to those of a pod.
RUNTIME_FIELDS = {"supportedModelFormats", "protocolVersions", "multiModel", "annotations"}
PREDICTOR_FIELDS = {"minReplicas", "maxReplicas", "model"}


def load(name: str) -> Object:
    return dict(yaml.safe_load((FOLDER / f"{name}.yaml").read_text()))


@pytest.fixture(scope="module")
def runtime() -> Object:
    return load("servingruntime")


@pytest.fixture(scope="module")
def service() -> Object:
    return load("inferenceservice")


@pytest.fixture(scope="module")
def pod(runtime, service) -> Object:
    """The pod spec that KServe makes from both."""
    ours = {name: value for name, value in service["spec"]["predictor"].items() if name not in PREDICTOR_FIELDS}
    return {**{name: value for name, value in runtime["spec"].items() if name not in RUNTIME_FIELDS}, **ours}


@pytest.fixture(scope="module")
def server(pod) -> Object:
    (container,) = pod["containers"]
    return dict(container)


def test_the_pod_is_valid_in_kubernetes(pod):
    import kubernetes_validate

    whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "florence2"}, "spec": pod}
    kubernetes_validate.validate(whole, KUBERNETES, strict=True)


def test_service_and_runtime_match(runtime, service):
    assert (runtime["apiVersion"], runtime["kind"]) == ("serving.kserve.io/v1alpha1", "ServingRuntime")
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] in {each["name"] for each in runtime["spec"]["supportedModelFormats"]}
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]


def test_the_container_and_its_port_have_the_names_that_kserve_requires(runtime, server):
    """KServe requires the name, sends to the first port, and uses plaintext HTTP/2 if its name is h2c."""
    assert server["name"] == "kserve-container"
    environment = {each["name"]: each["value"] for each in server["env"]}
    assert server["ports"][0] == {"name": "h2c", "containerPort": int(environment["FLORENCE2_GRPC_PORT"])}
    health = next(port["containerPort"] for port in server["ports"] if port["name"] == "health")
    assert health == int(environment["FLORENCE2_HEALTH_PORT"])
    assert runtime["spec"]["annotations"]["prometheus.kserve.io/port"] == environment["FLORENCE2_METRICS_PORT"]
    assert environment["FLORENCE2_CHECKPOINT"] == "/mnt/models"


def test_the_pod_equals_the_charts(render, pod, server):
    """Probes, shutdown, security and volumes are the same in both."""
    chart = render({})
    for name in ("startupProbe", "readinessProbe", "livenessProbe", "lifecycle", "securityContext", "volumeMounts"):
        ours, theirs = server[name], chart.server[name]
        assert ours == theirs, name
    for name in ("terminationGracePeriodSeconds", "automountServiceAccountToken", "enableServiceLinks", "volumes"):
        assert pod[name] == chart.pod[name], name
    assert pod["securityContext"].items() <= chart.pod["securityContext"].items()
    for kind in ("requests", "limits"):
        for name in ("cpu", "memory"):
            assert server["resources"][kind][name] == chart.server["resources"][kind][name]
    variables = {each["name"]: each["value"] for each in server["env"] if each["name"] != "FLORENCE2_CHECKPOINT"}
    assert variables.items() <= chart.environment.items()
    assert server["image"].split("@")[0] == chart.server["image"].split("@")[0]
