"""The metrics page and the request log."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tritonclient.grpc as triton
from florence2.v1 import TaskRequest
from florence2_server.config import EngineConfig
from tritonclient.utils import InferenceServerException

from tests.conftest import DEMO_CHECKPOINT
from tests.reference import png
from tests.server.conftest import infer, tensors
from tests.server.observation import metric, metric_sum, metrics_page, requests_counted, seconds_until
from training.demo.sampling import sample_scene
from training.demo.scenes import draw

OPERATIONS = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
HISTOGRAMS = ("queue", "encode", "decode", "time_to_first_token")


@pytest.fixture(scope="module")
def logging_server(start_server):
    """A server that logs requests, after four valid requests and an invalid one."""
    server = start_server(FLORENCE2_LOG_REQUESTS="1")
    scene = png(draw(sample_scene(12)))
    with triton.InferenceServerClient(server.grpc_url) as client:
        for number in range(3):
            request = TaskRequest(caption={}, generation={"max_new_tokens": 5, "num_beams": 1})
            infer(client, scene, request, request_id=f"caption {number}", headers={"traceparent": TRACEPARENT})
        infer(client, scene, TaskRequest(free_prompt={"text": "a secret"}, generation={"max_new_tokens": 3}))
        with pytest.raises(InferenceServerException):
            client.infer("florence2", tensors([scene], [b"\xff"]))
    seconds_until(lambda: requests_counted(server) == 5, limit=10)
    return server


def values(server) -> dict[str, float]:
    """The time series of the only engine and of Triton, without the labels `engine` and `model`."""
    lines = [line for line in metrics_page(server).splitlines() if line and not line.startswith("#")]
    own = [re.sub(r',?(engine="0"|model="florence2")', "", line).replace("{,", "{").replace("{}", "") for line in lines]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in own)}


def test_requests_are_counted_by_task_and_outcome(logging_server):
    page = values(logging_server)
    counts = {name: value for name, value in page.items() if name.startswith("florence2_requests_total") and value}
    assert counts == {
        'florence2_requests_total{outcome="ok",task="caption"}': 3,
        'florence2_requests_total{outcome="ok",task="free_prompt"}': 1,
        'florence2_requests_total{outcome="invalid_argument",task="unknown"}': 1,
    }
    assert page['florence2_generated_tokens_total{task="caption"}'] == 15
    assert page['florence2_prompt_tokens_total{task="caption"}'] > 15


def test_every_time_series_has_the_labels_of_its_model_and_engine(logging_server):
    own = [line for line in metrics_page(logging_server).splitlines() if line.startswith("florence2_")]
    assert all('model="florence2"' in line for line in own)
    # Streams that florence2_stream refuses have no engine.
    assert {line.split("{")[0] for line in own if 'engine="0"' not in line} == {
        "florence2_requests_total",
        "florence2_refusals_total",
        "florence2_objective_requests_total",
    }


def test_the_page_says_what_is_served(logging_server):
    (line,) = [line for line in metrics_page(logging_server).splitlines() if line.startswith("florence2_info{")]
    labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
    checkpoint = labels.pop("checkpoint")
    assert Path(checkpoint).samefile(DEMO_CHECKPOINT)
    assert labels == {
        "model": "florence2",
        "engine": "0",
        "version": "0.1.0",
        "revision": "",
        "layout": "native",
        "device": "cpu",
        "dtype": "float32",
        "slots": "16",
    }
    log = logging_server.log_file.read_text()
    assert f"serves {checkpoint} (native layout) on cpu in float32 with 16 slots" in log


def test_requests_count_for_the_objectives_by_their_class(logging_server):
    name = "florence2_objective_requests_total"
    assert metric(logging_server, name, task_class="short", verdict="good") == 3
    assert metric(logging_server, name, task_class="long", verdict="good") == 1
    assert metric_sum(logging_server, name) == 4, "an invalid request does not count"
    assert metric(logging_server, "florence2_objective_seconds", task_class="short") == 2.5


def test_one_encoding_serves_all_requests_about_an_image(logging_server):
    page = values(logging_server)
    assert page["florence2_image_embedding_misses_total"] == 1
    assert page["florence2_image_embedding_hits_total"] == 3


def test_the_parts_of_a_requests_time_add_up(logging_server):
    page = values(logging_server)
    assert page['florence2_request_seconds_count{task="caption"}'] == 3
    parts = [page[f'florence2_{name}_seconds_sum{{task="caption"}}'] for name in ("queue", "encode", "decode")]
    whole = page['florence2_request_seconds_sum{task="caption"}']
    assert sum(parts) == pytest.approx(whole, rel=0.01)
    assert 0 < page['florence2_time_to_first_token_seconds_sum{task="caption"}'] < whole
    for name in HISTOGRAMS:
        assert page[f'florence2_{name}_seconds_count{{task="caption"}}'] == 3
        assert page[f'florence2_{name}_seconds_bucket{{task="caption",le="60"}}'] == 3


def test_the_engines_state_is_shown_within_seconds(logging_server):
    seconds_until(lambda: values(logging_server)["florence2_decode_steps_total"] >= 18, limit=10)
    page = values(logging_server)
    assert page["florence2_decode_rows_total"] >= page["florence2_decode_steps_total"]
    assert page["florence2_engine_up"] == 1
    assert page["florence2_slots"] == 16
    assert page["florence2_slots_in_use"] == 0
    assert page["florence2_engine_running_requests"] == page["florence2_engine_waiting_requests"] == 0
    assert page["florence2_image_embedding_cache_bytes"] > 0
    assert page['florence2_engine_memory_bytes{kind="host"}'] > 100_000_000
    assert page['florence2_engine_memory_bytes{kind="device"}'] == 0
    assert page["florence2_engine_restarts_total"] == page["florence2_engine_retried_requests_total"] == 0


def test_slots_in_use_are_those_of_requests_in_the_engine(server):
    request = TaskRequest(caption={}, generation={"min_new_tokens": 300})
    with triton.InferenceServerClient(server.grpc_url) as client, ThreadPoolExecutor(3) as callers:
        calls = [callers.submit(infer, client, png(draw(sample_scene(12))), request) for _ in range(3)]
        seconds_until(lambda: metric(server, "florence2_slots_in_use") == 3, limit=10)
        assert metric(server, "florence2_slots") == EngineConfig.slots
        for call in calls:
            call.result()
    seconds_until(lambda: metric(server, "florence2_slots_in_use") == 0, limit=10)


def test_the_log_has_a_line_for_each_request_and_none_of_its_text(logging_server):
    log = logging_server.log_file.read_text()
    lines = [json.loads(line) for line in log.splitlines() if line.startswith('{"time"')]
    # A line is written after the response was sent, so the next request's line may come first.
    assert sorted((line["request_id"], line["task"], line["outcome"]) for line in lines) == [
        ("", "free_prompt", "ok"),
        ("", "unknown", "invalid_argument"),
        ("caption 0", "caption", "ok"),
        ("caption 1", "caption", "ok"),
        ("caption 2", "caption", "ok"),
    ]
    by_task = {task: [line for line in lines if line["task"] == task] for task in ("caption", "free_prompt", "unknown")}
    assert {task: {line["trace_id"] for line in found} for task, found in by_task.items()} == {
        "caption": {TRACE_ID},
        "free_prompt": {""},
        "unknown": {""},
    }
    assert {line["generated_tokens"] for line in by_task["caption"]} == {5}
    assert sum(line["image_embedding_cached"] for line in lines if line["outcome"] == "ok") == 3
    assert "a secret" not in log


# The last test of the server, because it sends another request.
def test_the_documentation_lists_every_metric(logging_server):
    request = TaskRequest(task_list={"tasks": [{"caption": {}}, {"ocr": {}}]}, generation={"max_new_tokens": 3})
    with triton.InferenceServerClient(logging_server.grpc_url) as client:
        infer(client, png(draw(sample_scene(12))), request)
    seconds_until(lambda: 'florence2_requests_total{outcome="ok",task="task_list"}' in values(logging_server), limit=10)
    page = values(logging_server)
    assert page['florence2_steps_total{outcome="ok",task="caption"}'] == 1
    assert page['florence2_steps_total{outcome="ok",task="ocr"}'] == 1
    seconds_until(lambda: "florence2_stub_up" in metrics_page(logging_server), limit=10)  # observed twice a second
    exported = set(re.findall(r"^# TYPE (florence2_\w+)", metrics_page(logging_server), flags=re.MULTILINE))
    of_adapters = {"florence2_adapter_bytes", "florence2_adapter_requests_total"}  # without adapters there are none
    assert set(re.findall(r"^\| `(florence2_\w+)`", OPERATIONS, flags=re.MULTILINE)) == exported | of_adapters
