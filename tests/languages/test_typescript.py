"""The client in TypeScript (examples/typescript), built with npm's packages."""

import base64
import json
import re
import subprocess
import sys
from functools import partial

import pytest

from tests.conftest import EXAMPLE_SCENE, ROOT
from tests.docs.pages import blocks
from tests.docs.programs import is_same
from tests.languages.commands import BUILD_SECONDS, require, run, server_environment
from tests.languages.scene import assert_same, expected_lines
from tests.server.observation import metric_sum, seconds_until

pytestmark = pytest.mark.languages

EXAMPLE = ROOT / "examples" / "typescript"
OLDEST_NODE = 20
UNREACHABLE = re.compile(r"npm error (?:network|code (?:ENOTFOUND|EAI_AGAIN|ECONN\w+|E\w*TIMEDOUT))")
# What a web page does with an answer in which nothing was found.
LABELS = """
const [url, image] = process.argv.slice(1);
const request = { object_detection: {}, generation: { max_new_tokens: 1 } };
const body = JSON.stringify({ IMAGE: image, REQUEST: JSON.stringify(request) });
const headers = { "Content-Type": "application/json" };
const answer = await fetch(`${url}/v2/models/florence2/generate`, { method: "POST", headers, body });
const response = JSON.parse((await answer.json()).RESPONSE);
console.log(JSON.stringify(response.detections.detections.map((each) => each.label)));
"""


@pytest.fixture(scope="module")
def npm():
    """`npm("test")`: run a command of npm on the example, which has been built as its README says."""
    require("node", "npm")
    version = run("node", "--version", folder=EXAMPLE).strip()
    if int(version.removeprefix("v").partition(".")[0]) < OLDEST_NODE:
        pytest.skip(f"Node.js {version} is older than {OLDEST_NODE}")
    install = ["npm", "ci", "--prefer-offline", "--no-audit", "--no-fund"]
    installed = subprocess.run(install, cwd=EXAMPLE, capture_output=True, text=True, timeout=BUILD_SECONDS)
    if installed.returncode and UNREACHABLE.search(installed.stderr):
        pytest.skip("npm's registry cannot be reached")
    assert installed.returncode == 0, installed.stderr
    run(sys.executable, ROOT / "examples" / "descriptors.py", ROOT / "build" / "triton.binpb", folder=ROOT)
    command = partial(run, "npm", "--silent", folder=EXAMPLE)
    command("run", "generate")
    command("run", "build")
    return command


def test_the_code_is_formatted_and_has_no_any(npm):
    npm("run", "check", "--", "--error-on-warnings")


def test_the_lock_file_names_no_registry():
    packages = json.loads((EXAMPLE / "package-lock.json").read_text())["packages"]
    assert all("integrity" in package and "resolved" not in package for name, package in packages.items() if name)


def test_the_program_has_the_answers_of_the_python_client(npm, server, python_client):
    printed = npm("start", "--", server.grpc_url, str(EXAMPLE_SCENE))
    assert_same(printed, expected_lines(python_client))
    (shown,) = blocks(EXAMPLE / "README.md", "text")
    assert is_same(shown.text, printed)


def test_its_own_tests_pass_and_the_stream_that_it_leaves_is_cancelled(npm, server):
    cancelled = partial(
        metric_sum, server, "florence2_requests_total", outcome="cancelled", task="more_detailed_caption"
    )
    before = cancelled()
    printed = npm("test", **server_environment(server))
    assert re.search(r"^\S+ skipped 0$", printed, re.MULTILINE), printed
    seconds_until(lambda: cancelled() == before + 1)


def test_javascript_can_map_over_an_answer_in_which_nothing_was_found(server):
    require("node")
    image = base64.b64encode(EXAMPLE_SCENE.read_bytes()).decode()
    assert json.loads(run("node", "--input-type=module", "-e", LABELS, server.http_url, image, folder=ROOT)) == []
