"""The client in Go (examples/go), built with Debian's packages in GOPATH mode."""

import shutil
import sys
from functools import partial

import pytest

from tests.conftest import EXAMPLE_SCENE, ROOT
from tests.docs.pages import blocks
from tests.docs.programs import is_same
from tests.languages.commands import require, run, server_environment
from tests.languages.conftest import BUILD
from tests.languages.scene import assert_same, expected_lines
from tests.server.observation import metric_sum, seconds_until

pytestmark = pytest.mark.languages

EXAMPLE = ROOT / "examples" / "go"
PACKAGES = "/usr/share/gocode"  # where Debian's packages have Go code
WORKSPACE = BUILD / "go"
ENVIRONMENT = {"CGO_ENABLED": "0", "GOCACHE": str(BUILD / "go-cache"), "GOFLAGS": "-p=2"}


@pytest.fixture(scope="module")
def go():
    """`go("vet", "./...")`: run a command of Go on the example, which has been built."""
    tools = ("go", "gofmt", "protoc", "protoc-gen-go", "protoc-gen-go-grpc")
    require(*tools, f"{PACKAGES}/src/google.golang.org/grpc")
    shutil.rmtree(WORKSPACE, ignore_errors=True)
    run(EXAMPLE / "build.sh", WORKSPACE, folder=ROOT, PYTHON=sys.executable, **ENVIRONMENT)
    modes = {"GO111MODULE": "off", "GOPATH": f"{WORKSPACE}:{PACKAGES}"}
    return partial(run, "go", folder=WORKSPACE / "src" / "florence2", **modes, **ENVIRONMENT)


def test_the_code_is_formatted_and_vetted(go):
    assert run("gofmt", "-l", ".", folder=EXAMPLE) == ""
    assert go("vet", "./...") == ""


@pytest.mark.usefixtures("go")
def test_the_program_has_the_answers_of_the_python_client(server, python_client):
    printed = run(WORKSPACE / "scene", "-server", server.grpc_url, EXAMPLE_SCENE, folder=WORKSPACE)
    assert_same(printed, expected_lines(python_client))
    (shown,) = blocks(EXAMPLE / "README.md", "text")
    assert is_same(shown.text, printed), printed


def test_its_own_tests_pass_and_the_stream_that_it_leaves_is_cancelled(go, server):
    cancelled = partial(metric_sum, server, "florence2_requests_total", outcome="cancelled", task="ocr")
    before = cancelled()
    printed = go("test", "-count=1", "-v", ".", **server_environment(server))
    assert "SKIP" not in printed
    seconds_until(lambda: cancelled() == before + 1)
