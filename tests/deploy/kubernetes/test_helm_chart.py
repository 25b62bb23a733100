"""The chart as Helm, Kubernetes' schemas and checkov see it, and its documentation."""

import copy
import json
import re
import subprocess
import tomllib

import pytest
import yaml

from tests.deploy.kubernetes.rendering import (
    CASES,
    CHART,
    COMMIT,
    NAME,
    NAMESPACE,
    PINNED,
    ROOT,
    all_objects,
    example,
    manifests,
    merged,
)
from tests.deploy.kubernetes.values_table import rewrite

pytestmark = pytest.mark.deploy

LINT_WARNING = 2
# The oldest that Chart.yaml allows and the newest that kubernetes-validate knows.
KUBERNETES = ("1.30", "1.37")
CUSTOM_RESOURCES = {
    "ServiceMonitor",
    "PrometheusRule",
    "ScaledObject",
}  # test_helm_security.py and its neighbours look at these
CHECKOV = ROOT / "build" / "checkov" / "bin" / "checkov"
CHECKOV_CONFIG = CHART.parent / "checkov.yaml"
README = (CHART / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("case", CASES)
def test_lint_finds_nothing(case):
    import helm_python

    found = helm_python.lint(CHART, merged(PINNED, CASES[case]), strict=True, namespace=NAMESPACE)
    assert found["errors"] == []
    assert [each for each in found["messages"] if each["severity"] >= LINT_WARNING] == []


@pytest.mark.parametrize("version", KUBERNETES)
def test_every_object_is_one_that_kubernetes_takes(releases, version):
    import kubernetes_validate

    without_schema = set()
    for each in all_objects(releases):
        try:
            kubernetes_validate.validate(each, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            without_schema.add(each["kind"])
        except kubernetes_validate.ValidationError as error:
            pytest.fail(f"{each['kind']}: {'.'.join(map(str, error.path))}: {error.message}")
    assert without_schema == CUSTOM_RESOURCES


def test_the_schemas_refuse_what_kubernetes_does_not_know(render):
    import kubernetes_validate

    deployment = copy.deepcopy(render({}).deployment)
    deployment["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="livenesProbe"):
        kubernetes_validate.validate(deployment, KUBERNETES[1], strict=True)


def checkov(folder) -> dict:
    assert CHECKOV.exists(), "make test-deploy installs checkov"
    command = [CHECKOV, "--config-file", CHECKOV_CONFIG, "--directory", folder, "--output", "json", "--soft-fail"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return json.loads(done.stdout)


def test_checkov_finds_nothing(releases, tmp_path):
    for number, release in enumerate(releases.values()):
        (tmp_path / f"{number}.yaml").write_text(release.text)
    report = checkov(tmp_path)
    failed = {
        f"{each['check_id']} {each['check_name']}: {each['resource']}" for each in report["results"]["failed_checks"]
    }
    assert failed == set()
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["skipped"] == 0
    assert report["summary"]["passed"] > len(releases)


def test_checkov_would_find_something(render, tmp_path):
    (tmp_path / "bad.yaml").write_text(render({}).text.replace("readOnlyRootFilesystem: true", ""))
    assert {each["check_id"] for each in checkov(tmp_path)["results"]["failed_checks"]} == {"CKV_K8S_22"}


def test_what_checkov_skips_has_its_reason_above_it():
    lines = CHECKOV_CONFIG.read_text().split("skip-check:\n")[1].splitlines()
    skips = [number for number, line in enumerate(lines) if line.strip().startswith("- ")]
    assert skips
    assert all(number > 0 and lines[number - 1].strip().startswith("# ") for number in skips)


REFUSED = {
    "hub without a commit": ({"weights": {"source": "hub"}}, "/weights/hub/revision"),
    "hub with a branch": ({"weights": {"source": "hub", "hub": {"revision": "main"}}}, "/weights/hub/revision"),
    "hub with half an id": ({"weights": {"hub": {"id": "Florence-2-base"}}}, "/weights/hub/id"),
    "store without a url": ({"weights": {"source": "objectStore"}}, "/weights/objectStore/url"),
    "store with a floating image": (
        {"weights": {"objectStore": {"image": "rclone/rclone:latest"}}},
        "/weights/objectStore/image",
    ),
    "store with an image without tag": (
        {"weights": {"objectStore": {"image": "registry:5000/rclone"}}},
        "/weights/objectStore/image",
    ),
    "claim without a name": ({"weights": {"source": "pvc"}}, "/weights/pvc/claimName"),
    "unknown source": ({"weights": {"source": "ftp"}}, "/weights/source"),
    "misspelt value": ({"replicaCount": 3}, "replicaCount"),
    "misspelt setting": ({"settings": {"slot": 3}}, "slot"),
    "setting out of range": ({"settings": {"slots": 0}}, "/settings/slots"),
    "setting of the wrong type": ({"settings": {"slots": "many"}}, "/settings/slots"),
    "setting that weights decide": ({"settings": {"checkpoint": "x"}}, "checkpoint"),
    "setting among the environment": (
        {"extraEnvironment": [{"name": "FLORENCE2_SLOTS", "value": "4"}]},
        "/extraEnvironment/0/name",
    ),
    "argument that is no flag": ({"extraArguments": ["log"]}, "/extraArguments/0"),
    "digest without an algorithm": ({"image": {"digest": "5555"}}, "/image/digest"),
    "privileged port": ({"ports": {"grpc": 443}}, "/ports/grpc"),
    "mutual TLS without TLS": ({"tls": {"mutual": True}}, "/tls/mutual"),
    "GPU of no vendor": ({"gpu": {"resource": "gpu"}}, "/gpu/resource"),
    "resources without memory": ({"resources": {"limits": {"memory": None}}}, "/resources/limits"),
    "size without a unit that exists": ({"sharedMemory": "2GB"}, "/sharedMemory"),
    "probe too short for Python": ({"probes": {"liveness": {"timeoutSeconds": 1}}}, "/probes/liveness/timeoutSeconds"),
    "grace period too short": (
        {"shutdown": {"terminationGracePeriodSeconds": 60}},
        "shutdown.terminationGracePeriodSeconds is 60",
    ),
    "two autoscalers": ({"autoscaling": {"by": "both"}}, "/autoscaling/by"),
    "KEDA without a url": ({"autoscaling": {"keda": {"serverAddress": "prometheus:9090"}}}, "/keda/serverAddress"),
    "budget of nothing": ({"podDisruptionBudget": {"maxUnavailable": 0}}, "/podDisruptionBudget/maxUnavailable"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_refused_by_name(render, case):
    import helm_python

    values, name = REFUSED[case]
    with pytest.raises(helm_python.HelmError) as caught:
        render(values)
    assert name in str(caught.value)


def test_the_hub_example_says_that_it_wants_a_commit(render):
    import helm_python

    values = merged(example("a10"), {"weights": {"hub": {"revision": ""}}})
    with pytest.raises(helm_python.HelmError, match="/weights/hub/revision"):
        render(values)
    assert render(example("a10")).environment["FLORENCE2_CHECKPOINT"].endswith(COMMIT)


def test_a_packaged_chart_renders_the_same(releases, tmp_path):
    import helm_python

    archive = helm_python.package(CHART, destination=tmp_path)
    with helm_python.Chart.load(archive) as packaged:
        for release in releases.values():
            assert manifests(packaged.render(release.values, name=NAME, namespace=NAMESPACE)) == release.text
        assert "files/rules.yaml" in {each["name"] for each in packaged.files}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("files/rules.yaml", "prometheus/rules.yaml"), ("files/dashboard.json", "grafana/florence2.json")],
)
def test_rules_and_dashboard_are_the_projects(ours, theirs):
    """A chart reads no files outside itself, so it has copies."""
    original = ROOT / "docker" / theirs
    if not original.exists():
        pytest.skip(f"docker/{theirs} is not there yet")
    assert (CHART / ours).read_bytes() == original.read_bytes()


def test_the_chart_is_of_the_projects_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == version


def test_the_table_of_values_is_fresh():
    """`python -m tests.deploy.kubernetes.values_table` writes it."""
    assert rewrite(README, (CHART / "values.yaml").read_text()) == README


def test_every_value_has_a_place_in_the_schema():
    """What values.yaml has is listed, so that only what it has is taken."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == {*values, "global"}
    for name, value in values.items():
        listed = schema["properties"][name].get("properties")
        if isinstance(value, dict) and listed is not None and name != "settings":
            assert set(listed) == set(value), name


def test_the_values_in_the_readme_render(render):
    blocks = [yaml.safe_load(text) for language, text in BLOCKS if language == "yaml"]
    values = [block for block in blocks if "weights" in block]
    assert len(values) == 2
    for each in values:
        (init,) = render(each).pod["initContainers"]
        assert "$(CHECKPOINT_URL)" in init["args"]


def test_the_address_in_the_readme_is_a_service(render):
    (host, port) = re.search(r"dns:///([a-z0-9.-]+):(\d+)", README).groups()
    service = next(each for each in render({}).kind("Service") if each["spec"].get("clusterIP") == "None")
    assert host == f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local"
    assert int(port) == service["spec"]["ports"][0]["port"]
