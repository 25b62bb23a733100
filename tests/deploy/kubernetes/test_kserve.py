"""The KServe example: its pods as Kubernetes takes them, and the rest by what KServe documents."""

import pytest
import yaml

from tests.deploy.kubernetes.rendering import ROOT, Object

pytestmark = pytest.mark.deploy

FOLDER = ROOT / "docker" / "kserve"
KUBERNETES = "1.37"
# Fields of KServe's own beside those of a pod.
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
    """The pod's spec that KServe makes of both."""
    ours = {name: value for name, value in service["spec"]["predictor"].items() if name not in PREDICTOR_FIELDS}
    return {**{name: value for name, value in runtime["spec"].items() if name not in RUNTIME_FIELDS}, **ours}


@pytest.fixture(scope="module")
def server(pod) -> Object:
    (container,) = pod["containers"]
    return dict(container)


def test_the_pod_is_one_that_kubernetes_takes(pod):
    import kubernetes_validate

    whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "florence2"}, "spec": pod}
    kubernetes_validate.validate(whole, KUBERNETES, strict=True)


def test_service_and_runtime_find_each_other(runtime, service):
    assert (runtime["apiVersion"], runtime["kind"]) == ("serving.kserve.io/v1alpha1", "ServingRuntime")
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] in {each["name"] for each in runtime["spec"]["supportedModelFormats"]}
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]


def test_kserve_knows_the_container_and_its_port(runtime, server):
    """KServe wants the name, sends to the first port, and speaks plain HTTP/2 to one called h2c."""
    assert server["name"] == "kserve-container"
    environment = {each["name"]: each["value"] for each in server["env"]}
    assert server["ports"][0] == {"name": "h2c", "containerPort": int(environment["FLORENCE2_GRPC_PORT"])}
    assert runtime["spec"]["annotations"]["prometheus.kserve.io/port"] == environment["FLORENCE2_METRICS_PORT"]
    assert environment["FLORENCE2_CHECKPOINT"] == "/mnt/models"


def test_it_is_the_charts_pod_otherwise(render, pod, server):
    """What keeps a server alive and harmless is the same in both."""
    chart = render({})
    for name in ("startupProbe", "readinessProbe", "livenessProbe", "lifecycle", "securityContext", "volumeMounts"):
        ours, theirs = server[name], chart.server[name]
        assert ours == theirs, name
    for name in ("terminationGracePeriodSeconds", "automountServiceAccountToken", "enableServiceLinks", "volumes"):
        assert pod[name] == chart.pod[name], name
    assert pod["securityContext"].items() <= chart.pod["securityContext"].items()
    variables = {each["name"]: each["value"] for each in server["env"] if each["name"] != "FLORENCE2_CHECKPOINT"}
    assert variables.items() <= chart.environment.items()
    assert server["image"].split("@")[0] == chart.server["image"].split("@")[0]
