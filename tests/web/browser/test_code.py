"""The code that the page shows runs as it is, and gets the answer that the page shows."""

import contextlib
import io
import json
import subprocess
import urllib.request

import pytest
from florence2 import AsyncClient
from florence2.testing import MockTransport, task_response
from florence2_server.in_process import InProcess

from tests.conftest import EXAMPLE_SCENE
from tests.demo_adapter import save_demo_adapter
from tests.web.browser.conftest import served
from tests.web.browser.playground import TaskRow
from tests.web.browser.test_tasks import CIRCLE, without_scores

pytestmark = pytest.mark.web

SECONDS = 60
NAME = 'it\'s; a "scene" $1.png'
DETECT = TaskRow("Find", "detect")
# Names of options on the page, with their values.
OPTIONS = {"num_beams": "2", "max_new_tokens": "64", "length_penalty": "0.5"}
ROWS = [
    (DETECT, OPTIONS),
    (TaskRow("Find", "ground", 'a red circle that\'s "round" \\ 100 %'), {}),
    (TaskRow("Prompt", "generate", "42"), {}),
    (TaskRow("Describe", "describe-region", region=CIRCLE), {}),
]


def shown_code(playground, language):
    playground.page.get_by_role("tab", name=language).first.click()
    return playground.page.locator("#code").text_content()


def copied_body(playground):
    playground.page.get_by_role("tab", name="JSON").first.click()
    playground.page.click("#copy-code")
    playground.page.locator("#copy-code", has_text="Copied").wait_for()
    return playground.page.evaluate("navigator.clipboard.readText()")


def output_of_python(code, folder):
    output = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(output):
        exec(compile(code, "shown", "exec"), {})  # noqa: S102 - what a user would do with it
    return json.loads(output.getvalue())


def output_of_curl(code, folder):
    done = subprocess.run(["sh", "-c", f"{code} -sS"], cwd=folder, stdout=subprocess.PIPE, timeout=SECONDS, check=True)
    return json.loads(done.stdout)["result"]


def output_of_json(body, url):
    request = urllib.request.Request(url, body.encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=SECONDS) as response:
        return json.load(response)["result"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the picture, under a name that a shell would take apart."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / NAME).write_bytes(EXAMPLE_SCENE.read_bytes())
    return folder


@pytest.mark.parametrize(("row", "options"), ROWS, ids=[row.name for row, _ in ROWS])
def test_python_curl_and_json_get_the_answer_of_the_page(visit, server, door_url, folder, row, options):
    playground = visit(permissions=["clipboard-read", "clipboard-write"])
    playground.upload(NAME, "image/png", EXAMPLE_SCENE.read_bytes())
    playground.choose(row)
    playground.page.locator("#options summary").click()
    for name, value in options.items():
        playground.page.fill(f"#field-{name}", value)
    expected = without_scores(playground.run()["result"])
    # The page does not know Triton's address.
    python = shown_code(playground, "Python").replace("localhost:8001", server.grpc_url)
    assert without_scores(output_of_python(python, folder)) == expected
    assert without_scores(output_of_curl(shown_code(playground, "curl"), folder)) == expected
    assert without_scores(output_of_json(copied_body(playground), f"{door_url}/v1/{row.name}")) == expected


def test_choices_have_their_type_in_python(visit):
    playground = visit()
    playground.choose(DETECT)
    playground.page.locator("#options summary").click()
    for value, literal in {"true": "True", "false": "False", "never": '"never"'}.items():
        playground.page.select_option("#field-early_stopping", value)
        assert f"early_stopping={literal})" in shown_code(playground, "Python")


class Recording(InProcess):
    """An engine in this process that keeps the requests."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.requests = []

    async def stream_async(self, image, request, context):
        self.requests.append(request)
        async for reply in super().stream_async(image, request, context):
            yield reply


def see_dogs(image, request):  # noqa: ARG001
    return task_response("dog<loc_1><loc_2><loc_300><loc_400>")


@pytest.fixture(scope="module")
def two_models(tmp_path_factory):
    """Two models: the demo checkpoint in this process with an adapter, and a mock that sees dogs.

    Yields their URL, and the requests to the first.
    """
    adapter = tmp_path_factory.mktemp("adapters") / "drawn"
    save_demo_adapter(adapter)
    engine = Recording(adapters={"drawn": adapter}, device="cpu")
    clients = {"shapes": AsyncClient(transport=engine), "dogs": AsyncClient(transport=MockTransport(see_dogs))}
    with served(clients) as url:
        yield url, engine.requests


def test_an_adapter_is_chosen_and_named_in_the_request_and_the_code(visit, two_models):
    url, requests = two_models
    playground = visit(url)
    playground.choose(DETECT)
    playground.page.select_option("#field-adapter", "drawn")
    assert playground.run()["result"]["items"]
    assert [request.adapter for request in requests] == ["drawn"]
    code = playground.page.locator("#code").inner_text()
    assert 'InProcess(adapters={"drawn": "path/to/drawn"})' in code
    assert 'client.detect("scene.png", adapter="drawn")' in code


def test_another_model_is_chosen_with_its_own_adapters(visit, two_models):
    url, _ = two_models
    playground = visit(url)
    playground.choose(DETECT)
    playground.page.select_option("#field-adapter", "drawn")
    playground.page.select_option("#field-model", "dogs")
    assert playground.page.locator("#field-adapter").count() == 0
    assert [item["label"] for item in playground.run()["result"]["items"]] == ["dog"]
    code = playground.page.locator("#code").inner_text()
    assert 'model="dogs"' in code
    assert "adapter" not in code
    playground.page.select_option("#field-model", "shapes")
    assert len(playground.run()["result"]["items"]) == 3
    assert playground.page.locator("#field-adapter").input_value() == ""
