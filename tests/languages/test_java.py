"""The client in Java (examples/java), built with Debian's packages and javac; a warning is an error."""

import shutil
import sys
from functools import partial

import pytest

from tests.conftest import EXAMPLE_SCENE, ROOT
from tests.languages.commands import require, run, server_environment
from tests.languages.conftest import BUILD
from tests.languages.scene import assert_same, expected_lines
from tests.server.observation import metric_sum, seconds_until

pytestmark = pytest.mark.languages

EXAMPLE = ROOT / "examples" / "java"
FOLDER = BUILD / "java"
JARS = ("grpc-netty", "protobuf", "netty-codec-http2", "perfmark-api", "junit4")  # one of each package


@pytest.fixture(scope="module")
def java():
    """`java("florence2.scene.Scene", ...)`: run a class of the example, which has been built."""
    require("javac", "java", "protoc", "grpc_java_plugin", *(f"/usr/share/java/{name}.jar" for name in JARS))
    shutil.rmtree(FOLDER, ignore_errors=True)
    run(EXAMPLE / "build.sh", FOLDER, folder=ROOT, PYTHON=sys.executable)
    return partial(run, "java", "-cp", (FOLDER / "classpath").read_text().strip(), folder=FOLDER)


def test_the_program_has_the_answers_of_the_python_client(java, server, python_client):
    printed = java("florence2.scene.Scene", server.grpc_url, str(EXAMPLE_SCENE))
    assert_same(printed, expected_lines(python_client))


def test_its_own_tests_pass_and_the_stream_that_it_leaves_is_cancelled(java, server):
    cancelled = partial(metric_sum, server, "florence2_requests_total", outcome="cancelled", task="ocr")
    before = cancelled()
    tests = [f"florence2.client.{path.stem}" for path in EXAMPLE.rglob("*Test.java")]
    assert len(tests) == 2
    java("org.junit.runner.JUnitCore", *tests, **server_environment(server))
    seconds_until(lambda: cancelled() == before + 1)
