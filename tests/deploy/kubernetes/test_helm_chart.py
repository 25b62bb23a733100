"""The chart passes Helm's lint, Kubernetes' schemas and checkov, and its documentation is up to date."""

import copy
import json
import re
import subprocess
import tomllib

import pytest
import yaml

from tests.deploy.kubernetes.cases import CASES, CHART, COMMIT, NAME, NAMESPACE, PINNED, ROOT, merged
from tests.deploy.kubernetes.rendering import all_objects, manifests
from tests.deploy.kubernetes.values_table import rewrite

pytestmark = pytest.mark.deploy

LINT_WARNING = 2
# The oldest version that Chart.yaml allows and the newest that kubernetes-validate supports.
KUBERNETES = ("1.30", "1.37")
# Without schemas; the other test modules check them.
CUSTOM_RESOURCES = {"ServiceMonitor", "PrometheusRule", "ScaledObject", "GRPCRoute", "HTTPRoute"}
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
def test_every_object_is_valid_in_kubernetes(releases, version):
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


def test_the_schemas_reject_unknown_fields(render):
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


# checkov requires probes of every pod; the one of `helm test` runs once.
PROBES = {"CKV_K8S_8", "CKV_K8S_9"}


def failures(report: dict) -> set[str]:
    """The failed checks of a report, with their names and the objects."""
    return {
        f"{each['check_id']} {each['check_name']}: {each['resource']}"
        for each in report["results"]["failed_checks"]
        if not (each["check_id"] in PROBES and each["resource"].endswith("-test"))
    }


def test_checkov_finds_nothing(releases, tmp_path):
    """All cases that have other pods, roles or policies than the previous ones."""
    written = set()
    for number, release in enumerate(releases.values()):
        new = {json.dumps(each, sort_keys=True) for each in release.objects} - written
        if new:
            (tmp_path / f"{number}.yaml").write_text(release.text)
        written |= new
    report = checkov(tmp_path)
    assert failures(report) == set()
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["skipped"] == 0
    assert report["summary"]["passed"] > len(releases)


def test_checkov_finds_a_defect(render, tmp_path):
    (tmp_path / "bad.yaml").write_text(render({}).text.replace("readOnlyRootFilesystem: true", ""))
    assert {each.split(" ")[0] for each in failures(checkov(tmp_path))} == {"CKV_K8S_22"}


def test_every_skipped_check_has_its_reason_above_it():
    lines = CHECKOV_CONFIG.read_text().split("skip-check:\n")[1].splitlines()
    skips = [number for number, line in enumerate(lines) if line.strip().startswith("- ")]
    assert skips
    assert all(number > 0 and lines[number - 1].strip().startswith("# ") for number in skips)


def test_a_packaged_chart_renders_the_same(releases, tmp_path):
    import helm_python

    archive = helm_python.package(CHART, destination=tmp_path)
    with helm_python.Chart.load(archive) as packaged:
        for release in releases.values():
            assert manifests(packaged.render(release.values, name=NAME, namespace=NAMESPACE)) == release.text
        assert "files/rules.yaml" in {each["name"] for each in packaged.files}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("files/rules.yaml", "prometheus/rules.yaml"),
        ("files/dashboard.json", "grafana/florence2.json"),
        ("files/runbook.json", "grafana/runbook.json"),
    ],
)
def test_rules_and_dashboard_are_copies_of_the_projects(ours, theirs):
    """A chart cannot read files outside its folder, so it has copies."""
    assert (CHART / ours).read_bytes() == (ROOT / "docker" / theirs).read_bytes()


def test_the_chart_has_the_projects_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == version


def test_the_table_of_values_is_up_to_date():
    """`python -m tests.deploy.kubernetes.values_table` writes it."""
    assert rewrite(README, (CHART / "values.yaml").read_text()) == README


def test_every_value_is_in_the_schema():
    """The schema lists the values of values.yaml and accepts no others."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == {*values, "global"}
    for name, value in values.items():
        listed = schema["properties"][name].get("properties")
        if isinstance(value, dict) and listed is not None and name != "settings":
            assert set(listed) == set(value), name


# All blocks of the README but the rule of the Prometheus adapter, which is a value of another chart.
VALUES = [yaml.safe_load(text.replace("<commit>", COMMIT)) for language, text in BLOCKS if language == "yaml"]
VALUES = [block for block in VALUES if "rules" not in block]


@pytest.mark.parametrize("number", range(len(VALUES)))
def test_the_values_in_the_readme_render(render, number):
    assert render(VALUES[number]).deployment


def test_the_stores_in_the_readme_are_copied_by_their_tools(render):
    stores = [block for block in VALUES if "objectStore" in block.get("weights", {})]
    assert len(stores) == 2
    for each in stores:
        (init,) = render(each).pod["initContainers"]
        assert "$(CHECKPOINT_URL)" in init["args"]


def test_a_longer_queue_in_the_readme_gets_more_memory(render):
    (longer,) = [block for block in VALUES if "settings" in block]
    memory = [render(each).server["resources"]["limits"]["memory"] for each in ({}, longer)]
    queues = [int(render(each).environment["FLORENCE2_QUEUE_BYTES"]) for each in ({}, longer)]
    default, more = (int(each.removesuffix("Mi")) for each in memory)
    assert (more - default) << 20 == queues[1] - queues[0] > 0


def test_the_address_in_the_readme_is_a_service(render):
    (host, port) = re.search(r"dns:///([a-z0-9.-]+):(\d+)", README).groups()
    service = next(each for each in render({}).kind("Service") if each["spec"].get("clusterIP") == "None")
    assert host == f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local"
    assert int(port) == service["spec"]["ports"][0]["port"]
