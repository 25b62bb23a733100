"""Dockerfiles, lock files and the compose file, checked without a build."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml
from florence2_server.__main__ import main
from florence2_server.addresses import Ports
from florence2_server.engine.checkpoint.files import find
from packaging.requirements import Requirement

from tests.conftest import DEMO_CHECKPOINT
from tests.deploy.conftest import DOCKER, ROOT, python_tool, run
from tests.hub import COMMIT, Hub

pytestmark = pytest.mark.deploy

DOCKERFILES = ("Dockerfile", "Dockerfile.cpu")
LOCKS = ("requirements-cuda.lock", "requirements-cpu.lock")
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVERS = ("server-cpu", "server-gpu")


def pins(*lines: str) -> dict[str, str]:
    """Return names and versions of `name==version` lines."""
    found = [Requirement(line.split("#")[0].strip()) for line in lines if re.match(r"\w[\w.-]*==", line)]
    return {each.name.lower().replace("_", "-"): str(each.specifier).removeprefix("==") for each in found}


def locked(lock: str) -> dict[str, tuple[str, list[str]]]:
    """Return the versions and hashes of a lock file by name."""
    found = {}
    for block in re.split(r"\n(?=\w)", (DOCKER / lock).read_text())[1:]:
        ((name, version),) = pins(block.split(" ")[0].split("\n")[0]).items()
        found[name] = (version, re.findall(r"--hash=sha256:([0-9a-f]{64})\b", block))
    return found


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_hadolint_passes(dockerfile):
    assert run(python_tool("hadolint"), DOCKER / dockerfile) == ""


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_every_hadolint_exception_has_a_reason(dockerfile):
    ignored = re.findall(r"# hadolint ignore=.*", (DOCKER / dockerfile).read_text())
    assert all(re.fullmatch(r"# hadolint ignore=(DL\d+,?)+ # \w.*", line) for line in ignored)


def test_both_dockerfiles_have_the_same_final_steps():
    """Only the steps that bring Triton, Python and torch differ."""
    gpu, cpu = ((DOCKER / name).read_text() for name in DOCKERFILES)
    for begin, end in (("# A folder of the build context", "\nFROM "), ("COPY --from=build", r"\Z")):
        common = re.compile(f"(?s){begin}.*?{end}")
        assert common.search(gpu)[0].replace(" \\\n    FLORENCE2_REQUIRE_GPU=1", "") == common.search(cpu)[0]


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_the_build_fetches_a_checkpoint_from_the_hub(dockerfile, tmp_path):
    """Runs the build's command outside an image."""
    text, folder = (DOCKER / dockerfile).read_text(), tmp_path / "checkpoint"
    (command,) = re.findall(r"(?s)RUN --mount=type=bind,target=/context (\\\n.*?fi)\n", text)
    places = {"/opt/florence2/python/bin/python": sys.executable, "/context": ROOT, " /checkpoint": f" {folder}"}
    for inside, here in places.items():
        command = command.replace(inside, str(here))
    with Hub({"owner/name": DEMO_CHECKPOINT}, branches={"v1": COMMIT}) as hub:
        build = {"CHECKPOINT": "owner/name", "CHECKPOINT_REVISION": "v1", **hub.environment(tmp_path / "home")}
        subprocess.run(["sh", "-ec", command], env={**os.environ, **build}, check=True, timeout=60)
        assert "figures.json" not in hub.downloaded
    assert find(str(folder), safetensors_only=False).weights == ("model.safetensors",)
    assert not (folder / ".cache").exists()


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
@pytest.mark.parametrize("variables", [{}, {"FLORENCE2_HEALTH_PORT": "0", "FLORENCE2_MODELS": "a=owner/a b=owner/b"}])
def test_the_health_check_is_about_every_served_model(dockerfile, variables, monkeypatch, capsys):
    """Runs the command, which finds no server here, with a container's variables."""
    ports = Ports.free()
    places = {"FLORENCE2_HTTP_PORT": str(ports.http), "FLORENCE2_HEALTH_PORT": str(ports.health), **variables}
    for name, value in places.items():
        monkeypatch.setenv(name, value)
    (text,) = re.findall(r"(?s)^HEALTHCHECK .*?CMD (\[.*?\])", (DOCKER / dockerfile).read_text(), re.MULTILINE)
    command, *arguments = json.loads(text)
    assert command == "florence2-server"
    assert main(arguments) == 1
    line = capsys.readouterr().out
    if variables:
        expected = rf"unhealthy: a unreachable .*, b unreachable .*; through http://127\.0\.0\.1:{ports.http}\n"
    else:
        expected = rf"unhealthy: http://127\.0\.0\.1:{ports.health}/ready: .* Connection refused\n"
    assert re.fullmatch(expected, line), line


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_a_hash(lock):
    assert [name for name, (_, hashes) in locked(lock).items() if not hashes] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_has_the_versions_that_the_tests_run_with(lock):
    wanted = pins(*(ROOT / "requirements" / "server.txt").read_text().splitlines())
    versions = {name: version.removesuffix("+cpu") for name, (version, _) in locked(lock).items()}
    assert len(wanted) > 40
    assert {name: versions.get(name) for name in wanted} == wanted


def test_the_cpu_lock_adds_only_the_packages_of_its_source_file():
    asked = pins(*(DOCKER / "requirements-cpu.in").read_text().splitlines())
    server = pins(*(ROOT / "requirements" / "server.txt").read_text().splitlines())
    versions = {name: version for name, (version, _) in locked("requirements-cpu.lock").items()}
    assert versions == server | asked
    development = pins(*(ROOT / "requirements" / "development.txt").read_text().splitlines())
    assert asked["nvidia-pytriton"] == development["nvidia-pytriton"]
    assert asked["torch"] == f"{server['torch']}+cpu"


def test_lock_files_name_no_machine_and_no_index():
    for lock in LOCKS:
        assert not re.search(r"file:|--index|--find-links|https?:", (DOCKER / lock).read_text())


def test_the_compose_file_follows_the_specification():
    run(python_tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", DOCKER / "compose.yaml")


@pytest.mark.parametrize("service", COMPOSE["services"])
def test_every_service_runs_with_least_privilege(service):
    settings = COMPOSE["services"][service]
    assert settings["read_only"] is True
    assert settings["cap_drop"] == ["ALL"]
    assert settings["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in settings
    assert settings["ports"], "every service is reachable from this machine"
    assert all(port.startswith("127.0.0.1:") for port in settings["ports"])
    assert "build" in settings or re.search(r":v?\d+\.\d+\.\d+(-alpine)?$", settings["image"]), "a pinned tag"


@pytest.mark.parametrize("service", COMPOSE["services"])
def test_every_service_has_a_health_check(service):
    settings = COMPOSE["services"][service]
    if "build" in settings:
        assert settings["build"]["context"] == ".."
        assert "HEALTHCHECK" in (ROOT / settings["build"]["dockerfile"]).read_text()
    else:
        assert settings["healthcheck"]["test"][0] == "CMD"


def test_each_profile_has_one_server_with_the_name_that_prometheus_scrapes():
    assert [COMPOSE["services"][name]["profiles"] for name in SERVERS] == [["cpu"], ["gpu"]]
    prometheus = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text())
    (target,) = prometheus["scrape_configs"][0]["static_configs"][0]["targets"]
    for name in SERVERS:
        server = COMPOSE["services"][name]
        assert server["networks"]["default"]["aliases"] == [target.split(":")[0]]
        assert f"127.0.0.1:{target.split(':')[1]}:{target.split(':')[1]}" in server["ports"]
        assert {"tmpfs", "init"} <= set(server)
        assert int(server["stop_grace_period"].removesuffix("s")) > 30, "longer than the server's exit timeout"


@pytest.mark.parametrize("name", SERVERS)
def test_the_server_watches_a_folder_of_adapters_that_it_cannot_change(name):
    settings = COMPOSE["services"][name]
    (mount,) = [volume for volume in settings["volumes"] if "ADAPTERS_FOLDER" in volume]
    folder = re.fullmatch(r"\$\{ADAPTERS_FOLDER:-adapters\}:(/\w+):ro", mount)[1]
    assert settings["environment"]["FLORENCE2_ADAPTERS"] == f"${{FLORENCE2_ADAPTERS:-{folder}}}"


def test_every_mounted_file_exists():
    for settings in COMPOSE["services"].values():
        for volume in settings["volumes"]:
            source = re.sub(r"^\$\{\w+:-(.*?)\}", r"\1", volume).split(":")[0]
            assert source in COMPOSE["volumes"] or (DOCKER / source).exists(), source


def test_grafana_finds_its_dashboard_and_prometheus():
    grafana = COMPOSE["services"]["grafana"]
    folder = yaml.safe_load((DOCKER / "grafana" / "dashboards.yaml").read_text())["providers"][0]["options"]["path"]
    assert f"./grafana/florence2.json:{folder}/florence2.json:ro" in grafana["volumes"]
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == f"{folder}/florence2.json"
    (datasource,) = yaml.safe_load((DOCKER / "grafana" / "datasource.yaml").read_text())["datasources"]
    assert datasource["url"] == "http://prometheus:9090"
