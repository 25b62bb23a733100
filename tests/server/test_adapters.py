"""Adapters on a real server: served by name, watched, kept across a crash, counted, and loaded by an operator.

The tests use one server, in this order.
"""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from florence2.v1 import GenerationOptions, TaskRequest
from florence2_server.stub.sockets import folder_of
from florence2_server.tritonserver import StartError, TritonServer
from tritonclient.utils import InferenceServerException

from tests.server.conftest import START_SECONDS, infer, server_starter
from tests.server.observation import (
    engine_of,
    is_gone,
    metric,
    metrics_page,
    seconds_until,
)

NAMES = {"": "", "notebook": "adapter_notebook", "small": "adapter_small"}
REQUESTS, LOAD = "florence2_adapter_requests_total", "florence2_lora_requests_info"
CHANGE_SECONDS = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny):
    """The folder of adapters, with two."""
    folder = tmp_path_factory.mktemp("adapters")
    for name, source in NAMES.items():
        if name:
            shutil.copytree(tiny / source, folder / name)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory, tiny, folder):
    with server_starter(tmp_path_factory) as start:
        yield start(FLORENCE2_CHECKPOINT=str(tiny), FLORENCE2_ADAPTERS=str(folder), FLORENCE2_SLOTS="8")


@pytest.fixture(scope="module")
def client(server):
    with triton.InferenceServerClient(server.grpc_url) as client:
        yield client


@pytest.fixture(scope="module")
def expected(tiny):
    return {name: json.loads((tiny / source / "expected.json").read_text()) for name, source in NAMES.items()}


@pytest.fixture(scope="module")
def answer(client, tiny):
    """`answer(each, adapter)`: the text of the answer to an expected one's request."""

    def answer(each: dict, adapter: str) -> str:
        generation = GenerationOptions(num_beams=each["num_beams"], max_new_tokens=50)
        request = TaskRequest(prompt=each["prompt"], generation=generation, adapter=adapter)
        return infer(client, (tiny / each["image"]).read_bytes(), request).text

    return answer


@pytest.fixture(scope="module")
def error(client, tiny):
    """`error(adapter)`: the error of a request that names an adapter; None if it is answered."""

    def error(adapter: str) -> str | None:
        request = TaskRequest(caption={}, generation={"max_new_tokens": 2}, adapter=adapter)
        try:
            infer(client, (tiny / "scene0.png").read_bytes(), request)
        except InferenceServerException as error:
            is_invalid = error.status() == str(grpc.StatusCode.INVALID_ARGUMENT)
            return str(error.message()) if is_invalid else f"{error.status()}: {error.message()}"
        return None

    return error


@pytest.fixture(scope="module")
def command(server):
    """Runs `florence2-server adapters` for the server; returns its exit status and what it printed."""

    def command(name: str, *arguments: str) -> tuple[int, str]:
        server_option = ["--tritonserver", str(server.process_id)]
        run = subprocess.run(
            [sys.executable, "-m", "florence2_server", "adapters", name, *arguments, *server_option],
            capture_output=True,
            text=True,
            timeout=60,
        )
        return run.returncode, run.stdout + run.stderr

    return command


def series(server, name: str) -> list[str]:
    return [line for line in metrics_page(server).splitlines() if line.startswith(f"{name}{{")]


def adapters_of(client) -> list[str]:
    """The adapters in what the server says about itself."""
    about = triton.InferInput("ABOUT", [1], "BYTES")
    about.set_data_from_numpy(np.array([b"engine"], dtype=np.object_))
    result = client.infer("florence2_health", [about], client_timeout=10)
    (engine,) = json.loads(result.as_numpy("INFO").item())["engines"]
    adapters: list[str] = engine["adapters"]
    return adapters


def log_of(server) -> str:
    return str(server.log_file.read_text())


def test_mixed_answers_are_those_of_the_original_code_with_peft(answer, expected):
    cases = [(name, each) for name, answers in expected.items() for each in answers]
    mixed = [cases[(7 * index) % len(cases)] for index in range(len(cases))]
    with ThreadPoolExecutor(8) as callers:
        found = list(callers.map(lambda case: answer(case[1], case[0]), mixed))
    wrong = [(name, each["prompt"]) for (name, each), text in zip(mixed, found, strict=True) if text != each["text"]]
    assert wrong == []
    assert len(cases) > 90


def test_an_unknown_name_is_invalid_and_the_known_ones_are_listed(error, server):
    assert error("unknown") == "adapter: got 'unknown', expected one of notebook, small"
    assert error("Small") == "adapter: got 'Small', expected one of notebook, small"
    assert error("../small").startswith("adapter: got '../small', expected 1 to 64 letters")
    seconds_until(lambda: metric(server, REQUESTS, adapter="(other)") == 2, limit=10)
    assert "unknown" not in "".join(series(server, REQUESTS))


def test_what_is_served_is_known(server, client):
    assert adapters_of(client) == ["notebook", "small"]
    assert metric(server, "florence2_adapters") == 2
    assert metric(server, "florence2_adapter_bytes", adapter="small") > 1000
    assert "adapter 'small' is served: rank " in log_of(server)


def test_requests_are_counted_by_adapter(server, expected):
    count = len(expected["small"])
    seconds_until(lambda: metric(server, REQUESTS, adapter="small", outcome="ok") == count, limit=10)


def test_an_adapter_that_is_moved_into_the_folder_is_served_until_it_is_removed(
    server, answer, error, expected, folder, tiny, tmp_path
):
    shutil.copytree(tiny / "adapter_small", tmp_path / "dropped")
    assert error("dropped") is not None
    shutil.move(tmp_path / "dropped", folder / "dropped")
    seconds_until(lambda: error("dropped") is None, limit=CHANGE_SECONDS)
    for each in expected["small"][:4]:
        assert answer(each, "dropped") == each["text"]
    seconds_until(lambda: metric(server, REQUESTS, adapter="dropped", outcome="ok") >= 5, limit=10)
    shutil.rmtree(folder / "dropped")
    seconds_until(lambda: error("dropped") is not None, limit=CHANGE_SECONDS)
    assert error("dropped") == "adapter: got 'dropped', expected one of notebook, small"
    seconds_until(lambda: "dropped" not in metrics_page(server), limit=10)
    assert metric(server, "florence2_adapters") == 2
    assert "adapter 'dropped' is no longer served" in log_of(server)


def test_a_changed_adapter_answers_anew(answer, expected, folder, tiny):
    shutil.copytree(tiny / "adapter_small", folder / "changed")
    each = expected["notebook"][0]
    seconds_until(lambda: "changed" in names_listed(answer, each), limit=CHANGE_SECONDS)
    assert answer(each, "changed") != each["text"]
    for path in (tiny / "adapter_notebook").iterdir():
        shutil.copy(path, folder / "changed")

    def is_new() -> bool:
        try:
            return bool(answer(each, "changed") == each["text"])
        except InferenceServerException:  # between the two versions
            return False

    seconds_until(is_new, limit=CHANGE_SECONDS)
    shutil.rmtree(folder / "changed")


def test_each_cascade_is_answered_by_one_version_of_an_adapter_that_changes(server, client, folder, tiny, tmp_path):
    image = (tiny / "scene0.png").read_bytes()
    generation = GenerationOptions(num_beams=1, max_new_tokens=20)

    def texts(adapter: str) -> tuple[str, ...]:
        request = TaskRequest(caption_grounding={}, generation=generation, adapter=adapter)
        return tuple(step.response.text for step in infer(client, image, request).steps)

    versions = [texts(name) for name in ("small", "notebook")]
    assert {len(texts) for texts in versions} == {2}
    assert all(one != other for one, other in zip(*versions, strict=True))
    shutil.copytree(tiny / "adapter_small", folder / "swapped")
    served = "adapter 'swapped' is served"
    seconds_until(lambda: served in log_of(server), limit=CHANGE_SECONDS)
    stop = threading.Event()

    def ask() -> list[tuple[str, ...]]:
        answers = []
        while not stop.is_set():
            answers.append(texts("swapped"))
        return answers

    with ThreadPoolExecutor(4) as callers:
        calls = [callers.submit(ask) for _ in range(4)]
        try:
            for number in range(6):
                shutil.copytree(tiny / f"adapter_{('notebook', 'small')[number % 2]}", tmp_path / f"{number}")
                (folder / "swapped").rename(tmp_path / f"former {number}")
                (tmp_path / f"{number}").rename(folder / "swapped")
                count = 2 + number
                seconds_until(lambda count=count: log_of(server).count(served) == count, limit=CHANGE_SECONDS)
        finally:
            stop.set()
        answers = [answer for call in calls for answer in call.result()]
    assert set(answers) == set(versions), "no answer mixes them"
    shutil.rmtree(folder / "swapped")
    seconds_until(lambda: "adapter 'swapped' is no longer served" in log_of(server), limit=CHANGE_SECONDS)


def names_listed(answer, each: dict) -> str:
    """The names in the error for an unknown one."""
    with pytest.raises(InferenceServerException) as raised:
        answer(each, "unknown")
    return str(raised.value.message())


def test_one_that_cannot_be_served_is_a_single_warning_and_the_others_are_served(server, error, command, folder):
    (folder / "broken").mkdir()
    (folder / "broken" / "adapter_config.json").write_text("{")
    seconds_until(lambda: "adapter 'broken' cannot be served" in log_of(server), limit=CHANGE_SECONDS)
    (folder / "broken" / "adapter_config.json").write_text("{}")
    seconds_until(lambda: log_of(server).count("adapter 'broken' cannot be served") == 2, limit=CHANGE_SECONDS)
    assert (error("small"), error("notebook")) == (None, None)
    shutil.rmtree(folder / "broken")
    seconds_until(lambda: "broken" not in command("list")[1], limit=CHANGE_SECONDS)


def test_an_operator_loads_lists_and_unloads(command, error, tiny):
    status, output = command("load", f"loaded={tiny / 'adapter_small'}")
    assert (status, output.startswith("loaded is served: rank ")) == (0, True), output
    assert error("loaded") is None
    status, output = command("list")
    rows = [line.split() for line in output.splitlines()]
    assert [(row[0], row[3]) for row in rows[1:]] == [
        ("loaded", "command"),
        ("notebook", "folder"),
        ("small", "folder"),
    ]
    status, output = command("unload", "small")
    assert (status, "comes from the folder of FLORENCE2_ADAPTERS" in output, output.count("\n")) == (1, True, 1)
    status, output = command("load", "bad=/nowhere")
    assert (status, output) == (
        1,
        "error: engine 0: adapter '/nowhere': no such folder, and not a hub id (owner/name or owner/name@revision)\n",
    )


def test_only_the_servers_user_can_reach_the_sockets_of_the_command(server):
    sockets = folder_of(server.process_id)
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    assert (sockets / "florence2.0.admin.sock").is_socket()


def test_a_restarted_engine_has_the_same_adapters(server, client, answer, error, expected):
    before = adapters_of(client)
    assert before == ["loaded", "notebook", "small"]
    engine = engine_of(server)
    os.kill(engine, signal.SIGKILL)
    seconds_until(lambda: is_gone(engine))
    # Submitted while there is no engine: the next one has its adapters before it is sent requests.
    for name in ("notebook", "small"):
        assert answer(expected[name][0], name) == expected[name][0]["text"]
    assert error("loaded") is None
    assert adapters_of(client) == before
    assert engine_of(server) != engine


def test_what_an_operator_loaded_can_be_unloaded(command, error):
    assert command("unload", "loaded") == (0, "")
    assert error("loaded") == "adapter: got 'loaded', expected one of notebook, small"
    status, output = command("unload", "loaded")
    assert (status, output) == (1, "error: engine 0: there is no adapter 'loaded'\n")


def test_the_gateway_is_shown_running_and_waiting_adapters_in_one_series(server, client, tiny):
    image = (tiny / "scene0.png").read_bytes()
    generation = GenerationOptions(num_beams=1, min_new_tokens=400, max_new_tokens=400)
    lines = []

    def run(adapter: str) -> None:
        infer(client, image, TaskRequest(caption={}, generation=generation, adapter=adapter))

    def is_shown(*labels: str) -> bool:
        lines.append(series(server, LOAD))
        return any(all(label in line for label in labels) for line in lines[-1])

    with ThreadPoolExecutor(24) as callers:
        calls = [callers.submit(run, "small") for _ in range(8)]
        seconds_until(lambda: metric(server, "florence2_slots_in_use") == 8, limit=30)
        calls += [callers.submit(run, name) for name in ["small", "notebook"] * 8]
        running, waiting = 'running_lora_adapters="small"', 'waiting_lora_adapters="notebook,small"'
        seconds_until(lambda: is_shown(running, waiting), limit=60)
        for call in calls:
            call.result()
    seconds_until(lambda: is_shown('running_lora_adapters=""', 'waiting_lora_adapters=""'), limit=10)
    assert {len(each) for each in lines} == {1}
    assert 'max_lora="32"' in lines[-1][0]
    first = metric(server, LOAD)
    seconds_until(lambda: metric(server, LOAD) > first, limit=10)


def test_a_server_does_not_start_without_the_pairs_of_its_setting(tmp_path, tiny):
    missing = tmp_path / "missing"
    environment = {
        "FLORENCE2_CHECKPOINT": str(tiny),
        "FLORENCE2_ADAPTERS": f"small={tiny / 'adapter_small'},missing={missing}",
    }
    reason = f"adapters: missing: adapter '{missing}': no such folder, and not a hub id"
    with (
        (tmp_path / "log.txt").open("wb") as log,
        TritonServer(environment=environment, log=log) as server,
        pytest.raises(StartError, match=f"^{re.escape(reason)}"),
    ):
        server.wait_until_ready(START_SECONDS)
