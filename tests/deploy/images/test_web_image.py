"""The image of the web server: without an engine, with the chart's options, in front of the server's image."""

import base64
import json
import urllib.error
import urllib.request

import pytest
from florence2.web.config import WebConfig

from tests.deploy.documented import build_command
from tests.deploy.images.running import IMAGE, KEY, START_SECONDS, STOP_SECONDS, status_of

pytestmark = pytest.mark.deploy


@pytest.fixture(scope="module")
def web(containers, web_image, server, release, tmp_path_factory):
    """The web server with the chart's options and its Secret of keys, in front of the server instead of its Service."""
    keys = tmp_path_factory.mktemp("keys") / "api-keys"
    keys.write_text(f"tests:{KEY}\n")
    (container,) = release.web("Deployment")[0]["spec"]["template"]["spec"]["containers"]
    options = [each for each in container["args"] if not each.startswith("--url=")]
    (path,) = [each.partition("=")[2] for each in options if each.startswith("--api-keys=")]
    arguments = [*options, f"--url={server.url}"]
    with containers.running(web_image, {}, f"--volume={keys}:{path}:ro", arguments=arguments) as running:
        web = Web(running, release, container)
        running.wait_until(lambda: not running.is_running() or web.status("readinessProbe") == 200, START_SECONDS)
        assert running.is_running(), running.log()
        yield web


class Web:
    """A container of the web server, and the chart's probes of it."""

    def __init__(self, container, release, rendered):
        self.container = container
        (port,) = release.web("Service")[0]["spec"]["ports"]
        self.url = f"http://127.0.0.1:{port['port']}"
        self._rendered = rendered

    def status(self, probe: str) -> int:
        """The status that a probe gets; 0 if nobody listens yet."""
        try:
            return status_of(self.url + self._rendered[probe]["httpGet"]["path"])
        except OSError:
            return 0


def test_the_documented_image_has_the_name_that_the_chart_starts(release):
    (container,) = release.web("Deployment")[0]["spec"]["template"]["spec"]["containers"]
    assert build_command("Dockerfile.web").tag == container["image"].partition("@")[0]


def test_the_web_servers_image_has_no_engine_and_no_build_tools(containers, web_image):
    config = containers.inspect(web_image)
    assert (config["Config"]["User"], config["Config"]["StopSignal"]) == ("1000:1000", "SIGTERM")
    assert set(config["Config"]["ExposedPorts"]) == {f"{WebConfig().port}/tcp"}
    with containers.files(web_image) as root:
        packages = next((root / "opt/florence2/python/lib").glob("python3.*")) / "site-packages"
        assert (packages / "starlette").is_dir()
        unwanted = ("torch", "transformers", "pip", "setuptools", "pytriton")
        assert [name for name in unwanted if (packages / name).exists()] == []
        assert {
            folder.name for folder in (root / "opt/florence2/packages").glob("florence2*") if folder.suffix == ""
        } == {"florence2"}
        assert [tool for tool in ("gcc", "cc", "make", "pip", "pip3") if (root / "usr/bin" / tool).exists()] == []
        assert list((root / "var/lib/apt/lists").iterdir()) == []


def test_the_charts_probes_of_the_web_server_succeed_in_that_image(containers, web, web_image):
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert web.status(name) == 200, name
    kind, python, *arguments = containers.inspect(web_image)["Healthcheck"]["Test"]
    assert (kind, python) == ("CMD", "python")
    own = [each.replace(f"http://localhost:{WebConfig().port}", web.url) for each in arguments]
    assert web.container.execute(python, *own) == 0
    assert web.container.execute(python, *[each.replace("/ready", "/nowhere") for each in own]) == 1


def test_the_web_server_answers_callers_with_a_key_of_the_secret(web):
    body = json.dumps({"image": base64.b64encode(IMAGE.read_bytes()).decode()}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{web.url}/v1/caption", body, {**headers, "Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request, timeout=60) as response:
        assert json.load(response)["result"]
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(urllib.request.Request(f"{web.url}/v1/caption", body, headers), timeout=60)
    assert KEY not in web.container.log()


def test_the_web_servers_container_can_write_only_to_its_mount_and_stops_at_sigterm(web):
    inside = web.container.execute
    assert inside("sh", "-c", 'test "$(id -u):$(id -g)" = 1000:1000') == 0
    for folder in ("/", "/opt/florence2", "/etc", "/opt/florence2/packages/florence2"):
        assert inside("sh", "-c", f"touch {folder}/file") != 0, folder
    assert inside("sh", "-c", "touch /tmp/file && rm /tmp/file") == 0
    web.container.signal("SIGTERM")
    assert web.container.wait(STOP_SECONDS) == 0
