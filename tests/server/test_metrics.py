"""What the server tells of itself: metrics, logs."""

import json
import re
from pathlib import Path

import pytest
import tritonclient.grpc as triton
from florence2.v1 import TaskRequest
from tritonclient.utils import InferenceServerException

from tests.reference import png
from tests.server.conftest import ask, tensors
from tests.server.looks import metrics_page, questions_counted, seconds_until
from training.sampling import sample_scene
from training.scenes import draw

README = (Path(__file__).parents[2] / "README.md").read_text()
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
HISTOGRAMS = ("queue", "encode", "decode", "time_to_first_token")


@pytest.fixture(scope="module")
def talkative(start_server):
    """A server that logs requests, and its answers to four questions and a wrong one."""
    server = start_server(FLORENCE2_LOG_REQUESTS="1")
    scene = png(draw(sample_scene(12)))
    with triton.InferenceServerClient(server.grpc_url) as client:
        for number in range(3):
            request = TaskRequest(caption={}, generation={"max_new_tokens": 5, "num_beams": 1})
            ask(client, scene, request, request_id=f"caption {number}", headers={"traceparent": TRACEPARENT})
        ask(client, scene, TaskRequest(free_prompt={"text": "a secret"}, generation={"max_new_tokens": 3}))
        with pytest.raises(InferenceServerException):
            client.infer("florence2", tensors([scene], [b"\xff"]))
    seconds_until(lambda: questions_counted(server) == 5, limit=10)
    return server


def values(server) -> dict[str, float]:
    """Every series on the metrics page."""
    lines = [line for line in metrics_page(server).splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_questions_are_counted_by_task_and_outcome(talkative):
    page = values(talkative)
    counts = {name: value for name, value in page.items() if name.startswith("florence2_requests_total")}
    assert counts == {
        'florence2_requests_total{outcome="ok",task="caption"}': 3,
        'florence2_requests_total{outcome="ok",task="free_prompt"}': 1,
        'florence2_requests_total{outcome="invalid_argument",task="unknown"}': 1,
    }
    assert page['florence2_generated_tokens_total{task="caption"}'] == 15
    assert page['florence2_prompt_tokens_total{task="caption"}'] > 15


def test_one_encoding_serves_all_questions_about_an_image(talkative):
    page = values(talkative)
    assert page["florence2_image_embedding_misses_total"] == 1
    assert page["florence2_image_embedding_hits_total"] == 3


def test_times_are_counted_in_buckets_that_add_up(talkative):
    page = values(talkative)
    assert page['florence2_request_seconds_count{task="caption"}'] == 3
    parts = [page[f'florence2_{name}_seconds_sum{{task="caption"}}'] for name in ("queue", "encode", "decode")]
    whole = page['florence2_request_seconds_sum{task="caption"}']
    assert sum(parts) == pytest.approx(whole, rel=0.01)
    assert 0 < page['florence2_time_to_first_token_seconds_sum{task="caption"}'] < whole
    for name in HISTOGRAMS:
        assert page[f'florence2_{name}_seconds_count{{task="caption"}}'] == 3
        assert page[f'florence2_{name}_seconds_bucket{{task="caption",le="60"}}'] == 3


def test_what_the_engine_is_at_is_known_within_seconds(talkative):
    seconds_until(lambda: values(talkative)["florence2_decode_steps_total"] >= 18, limit=10)
    page = values(talkative)
    assert page["florence2_decode_rows_total"] >= page["florence2_decode_steps_total"]
    assert page["florence2_engine_up"] == 1
    assert page["florence2_slots"] == 16
    assert page["florence2_slots_in_use"] == 0
    assert page["florence2_engine_running_requests"] == page["florence2_engine_waiting_requests"] == 0
    assert page["florence2_image_embedding_cache_bytes"] > 0
    assert page['florence2_engine_memory_bytes{kind="host"}'] > 100_000_000
    assert page['florence2_engine_memory_bytes{kind="device"}'] == 0
    assert page["florence2_engine_restarts_total"] == page["florence2_engine_retried_requests_total"] == 0


def test_the_readmes_table_has_all_metrics_of_ours(talkative):
    exported = set(re.findall(r"^# TYPE (florence2_\w+)", metrics_page(talkative), flags=re.MULTILINE))
    assert set(re.findall(r"^\| `(florence2_\w+)`", README, flags=re.MULTILINE)) == exported


def test_the_log_has_a_line_for_each_question_and_no_word_of_it(talkative):
    log = talkative.log_file.read_text()
    lines = [json.loads(line) for line in log.splitlines() if line.startswith('{"time"')]
    # A line is written after the answer was sent: the next question's may be first.
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
