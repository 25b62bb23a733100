"""`make install` takes PyTorch's CPU build on machines without a GPU. The index is a stand-in on loopback."""

import contextlib
import http.server
import os
import threading
import zipfile
from pathlib import Path

import pytest

from requirements.install import CPU_INDEX, choose_source, pinned_torch
from tests.package.environments import INSTALLER

pytestmark = pytest.mark.package

VERSION = pinned_torch()
# Not this machine's own: what is tested is the choice, on any machine.
NO_PIP_SETTINGS = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_INDEX_URL": "", "PIP_EXTRA_INDEX_URL": ""}


class Index(http.server.SimpleHTTPRequestHandler):
    """Serves a folder in the layout of a package index, and keeps the paths that were fetched."""

    def do_GET(self) -> None:
        self.server.fetched.append(self.path)
        super().do_GET()

    def log_message(self, *_) -> None:
        pass


@contextlib.contextmanager
def serving(folder: Path):
    """The url of an index that serves a folder, and the paths that are fetched from it."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Index(*args, directory=folder)) as server:
        server.fetched = []
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", server.fetched
        finally:
            server.shutdown()
            thread.join()


def make_wheel(folder: Path, name: str, version: str) -> Path:
    """A wheel with metadata alone."""
    folder.mkdir(parents=True, exist_ok=True)
    wheel, metadata = folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for file, text in files.items():
            archive.writestr(f"{metadata}/{file}", text)
        archive.writestr(f"{metadata}/RECORD", "".join(f"{metadata}/{file},,\n" for file in (*files, "RECORD")))
    return wheel


def make_index(folder: Path, *versions: str) -> Path:
    """A package index with wheels of torch that hold nothing."""
    names = [make_wheel(folder / "torch", "torch", version).name for version in versions]
    links = (f'<a href="{name.replace("+", "%2B")}">{name}</a>' for name in names)
    (folder / "torch" / "index.html").write_text("\n".join(links))
    return folder


@pytest.fixture
def cpu_index(tmp_path):
    with serving(make_index(tmp_path / "index", "1.0+cpu", f"{VERSION}+cpu")) as served:
        yield served


@pytest.fixture
def closed_index():
    """The url of an index that refuses connections."""
    with http.server.HTTPServer(("127.0.0.1", 0), Index) as server:
        return f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def rest(tmp_path):
    """A package that stands for the rest of the requirements."""
    return make_wheel(tmp_path / "rest", "rest", "1.0")


@pytest.fixture(scope="module")
def shared_environment(make_environment):
    return make_environment("installer")


@pytest.fixture
def environment(shared_environment):
    """An environment with pip alone."""
    yield shared_environment
    shared_environment.run("pip", "uninstall", "--yes", "torch", "rest")


def installed(environment) -> set[str]:
    return {line for line in environment.run("pip", "list", "--format=freeze").split() if line[:4] in ("torc", "rest")}


def test_without_a_gpu_only_pytorch_comes_from_its_cpu_index(cpu_index, rest, environment):
    url, fetched = cpu_index
    shown = environment.run("python", INSTALLER, rest, TORCH_INDEX=url, **NO_PIP_SETTINGS)
    assert installed(environment) == {f"torch=={VERSION}+cpu", "rest==1.0"}
    assert {path.split("/")[1] for path in fetched} == {"torch"}
    assert shown.startswith(f"Installing PyTorch {VERSION} for CPU from {url}, and the rest: about")
    assert "GB to download" in shown.splitlines()[0], "said before pip begins"


def test_an_index_that_cannot_be_reached_is_passed_over(closed_index, rest, environment):
    shown = environment.run("python", INSTALLER, rest, TORCH_INDEX=closed_index, **NO_PIP_SETTINGS)
    assert installed(environment) == {"rest==1.0"}
    notice, *of_pip = shown.splitlines()
    assert notice.startswith(f"No GPU here, but PyTorch's CPU index ({closed_index}) cannot be reached.")
    assert "PyPI's build includes CUDA: about" in notice
    assert [line for line in of_pip if "error" in line.lower() or "warning" in line.lower()] == []


def test_another_index_that_pip_is_configured_to_use_is_kept(cpu_index, rest, environment):
    url, fetched = cpu_index
    settings = {**NO_PIP_SETTINGS, "PIP_INDEX_URL": "http://127.0.0.1:1/simple"}
    shown = environment.run("python", INSTALLER, rest, TORCH_INDEX=url, **settings)
    assert fetched == []
    assert shown.startswith(f"Installing PyTorch {VERSION} and the rest from the index that pip is set to use")


def test_pytorch_that_is_installed_stays_and_nothing_is_announced(cpu_index, rest, environment, tmp_path):
    url, fetched = cpu_index
    environment.run("pip", "install", make_wheel(tmp_path, "torch", VERSION), **NO_PIP_SETTINGS)
    shown = environment.run("python", INSTALLER, rest, TORCH_INDEX=url, **NO_PIP_SETTINGS)
    assert installed(environment) == {f"torch=={VERSION}", "rest==1.0"}
    assert fetched == []
    assert "PyTorch" not in shown


def test_a_failure_of_pip_is_the_installers(environment, tmp_path):
    done = environment.finished(
        "python", INSTALLER, tmp_path / "missing.whl", TORCH_INDEX="file:///", **NO_PIP_SETTINGS
    )
    assert done.returncode == 1


def test_with_a_gpu_the_cpu_index_is_not_contacted(cpu_index):
    url, fetched = cpu_index
    source = choose_source(VERSION, url, gpu=True, replaces_pypi=False)
    assert source.index is None
    assert f"PyTorch {VERSION} with CUDA" in source.notice
    assert fetched == []


def test_an_index_without_the_pinned_version_is_passed_over(tmp_path):
    with serving(make_index(tmp_path, f"{VERSION}0+cpu", VERSION)) as (url, _):
        assert choose_source(VERSION, url, gpu=False, replaces_pypi=False).index is None


@pytest.mark.parametrize("answer", [b"", b"not HTTP\r\n\r\n", b"HTTP/1.1 403 Forbidden\r\n\r\n"])
def test_an_index_that_does_not_answer_properly_is_passed_over(answer):
    class Broken(http.server.BaseHTTPRequestHandler):
        def handle(self) -> None:
            self.wfile.write(answer)

    with http.server.HTTPServer(("127.0.0.1", 0), Broken) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert choose_source(VERSION, url, gpu=False, replaces_pypi=False).index is None
        thread.join()


def test_the_cpu_index_is_the_one_that_the_image_uses():
    assert f"ARG TORCH_INDEX={CPU_INDEX}" in (INSTALLER.parents[1] / "docker" / "Dockerfile.cpu").read_text()
