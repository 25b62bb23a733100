"""Dockerfiles, lock files and the compose file, checked without a build."""

import contextlib
import http.server
import importlib.metadata
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator

import pytest
import yaml
from florence2.web.config import WebConfig
from florence2_server.__main__ import main
from florence2_server.addresses import Ports
from florence2_server.engine.checkpoint.files import find
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import DEMO_CHECKPOINT
from tests.deploy.conftest import DOCKER, ROOT, python_tool, run
from tests.hub import COMMIT, Hub

pytestmark = pytest.mark.deploy

DOCKERFILES = ("Dockerfile", "Dockerfile.cpu")  # of the server
ALL_DOCKERFILES = (*DOCKERFILES, "Dockerfile.web")
LOCKS = ("requirements-cuda.lock", "requirements-cpu.lock")  # of the server
ALL_LOCKS = (*LOCKS, "requirements-web.lock")
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


@pytest.mark.parametrize("dockerfile", ALL_DOCKERFILES)
def test_hadolint_passes(dockerfile):
    assert run(python_tool("hadolint"), DOCKER / dockerfile) == ""


@pytest.mark.parametrize("dockerfile", ALL_DOCKERFILES)
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


@pytest.mark.parametrize("lock", ALL_LOCKS)
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


def test_the_web_lock_has_the_packages_of_the_extra_in_the_versions_that_the_tests_run_with():
    """`make locks` resolves the extra; a package that it gained or lost makes the file out of date."""
    builds = pins(*(DOCKER / "requirements-web.in").read_text().splitlines())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["web"]]
    needed = required(*map(Requirement, lines)) | builds.keys()
    versions = {name: version for name, (version, _) in locked("requirements-web.lock").items()}
    assert versions.keys() == needed
    files = [(ROOT / "requirements" / f"{name}.txt").read_text() for name in ("development", "finetune", "server")]
    tested = pins(*"\n".join(files).splitlines()) | builds
    assert versions == {name: tested[name] for name in versions}
    assert not {"torch", "transformers", "nvidia-pytriton"} & versions.keys()


def required(*requirements: Requirement) -> set[str]:
    """The names of packages and of all that they require, according to those that are installed here."""
    found: set[tuple[str, str]] = set()
    waiting = [(each.name, extra) for each in requirements for extra in ("", *each.extras)]
    while waiting:
        name, extra = waiting.pop()
        if (canonicalize_name(name), extra) in found:
            continue
        found.add((canonicalize_name(name), extra))
        for own in map(Requirement, importlib.metadata.requires(name) or ()):
            if own.marker is None or own.marker.evaluate({"extra": extra}):
                waiting += [(own.name, each) for each in ("", *own.extras)]
    return {name for name, _ in found}


def test_lock_files_name_no_machine_and_no_index():
    for lock in ALL_LOCKS:
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


def web_command(**variables: str) -> list[str]:
    """The web server's arguments, as Compose makes them of its variables."""
    replaced = re.compile(r"\$\{(\w+):\+([^}]*)\}")
    return shlex.split(
        replaced.sub(lambda each: each[2] if each[1] in variables else "", COMPOSE["services"]["web"]["command"])
    )


def test_the_web_server_reaches_the_server_and_requires_keys_if_there_is_a_file_of_them():
    from florence2.cli.option_groups import URL_VARIABLE

    web = COMPOSE["services"]["web"]
    (alias,) = {alias for name in SERVERS for alias in COMPOSE["services"][name]["networks"]["default"]["aliases"]}
    assert web["environment"] == {URL_VARIABLE: f"{alias}:8001"}
    assert web["profiles"] == ["web"]
    (secret,) = web["secrets"]
    assert COMPOSE["secrets"] == {secret: {"file": "${API_KEYS_FILE:-/dev/null}"}}
    assert "--api-keys" not in web_command()
    assert web_command(API_KEYS_FILE="keys")[-2:] == ["--api-keys", f"/run/secrets/{secret}"]


def test_the_web_server_has_memory_for_all_bodies_and_time_to_finish_requests():
    web, defaults = COMPOSE["services"]["web"], WebConfig()
    options = dict(itertools.pairwise(web_command()))
    bodies = int(options["--concurrency"]) * defaults.max_body_bytes / (1 << 20)
    assert web["mem_limit"] == f"{256 + 6 * bodies:g}mb"
    assert int(web["stop_grace_period"].removesuffix("s")) > int(options["--drain"]) >= defaults.timeout


def test_the_web_servers_health_check_asks_whether_requests_are_answered():
    """Runs the command, which finds no server here."""
    (text,) = re.findall(r"(?s)^HEALTHCHECK .*?CMD (\[.*?\])$", (DOCKER / "Dockerfile.web").read_text(), re.MULTILINE)
    python, *arguments = json.loads(text)
    assert python == "python"
    assert f"localhost:{WebConfig().port}/ready" in arguments[-1]
    with serving_status(503) as port:
        assert run_python(arguments, port) == 1
    with serving_status(200) as port:
        assert run_python(arguments, port) == 0


@contextlib.contextmanager
def serving_status(status: int) -> Iterator[int]:
    """A server that responds with this status. Yields its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def run_python(arguments: list[str], port: int) -> int:
    """The exit status of Python with these arguments, and another port."""
    own = [each.replace(f":{WebConfig().port}/", f":{port}/") for each in arguments]
    return subprocess.run([sys.executable, *own], capture_output=True, timeout=60).returncode


def test_every_mounted_file_exists():
    for settings in COMPOSE["services"].values():
        for volume in settings.get("volumes", ()):
            source = re.sub(r"^\$\{\w+:-(.*?)\}", r"\1", volume).split(":")[0]
            assert source in COMPOSE["volumes"] or (DOCKER / source).exists(), source


def test_grafana_finds_its_dashboard_and_prometheus():
    grafana = COMPOSE["services"]["grafana"]
    folder = yaml.safe_load((DOCKER / "grafana" / "dashboards.yaml").read_text())["providers"][0]["options"]["path"]
    assert f"./grafana/florence2.json:{folder}/florence2.json:ro" in grafana["volumes"]
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == f"{folder}/florence2.json"
    (datasource,) = yaml.safe_load((DOCKER / "grafana" / "datasource.yaml").read_text())["datasources"]
    assert datasource["url"] == "http://prometheus:9090"
