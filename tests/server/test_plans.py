"""Cascades and task lists, answered by a real server: each step has the answer of the same request alone."""

import json
import threading
import time

import pytest
import tritonclient.grpc as triton
from florence2.v1 import StepResponse, TaskRequest, TaskResponse
from tritonclient.utils import InferenceServerException

from tests.conftest import EXAMPLE_SCENE
from tests.reference import TASKS
from tests.server.conftest import infer, tensors
from tests.server.observation import metric_sum, seconds_until


@pytest.fixture(scope="module")
def scene() -> bytes:
    return EXAMPLE_SCENE.read_bytes()


def compared(response: TaskResponse) -> tuple:
    """What does not depend on what else is in the batch: times do, and probabilities in their last bits."""
    kind = response.WhichOneof("result")
    return response.text, response.finish_reason, list(response.token_ends), kind


def alone(client, image: bytes, request: TaskRequest) -> TaskResponse:
    """The response to a request of its own."""
    return infer(client, image, request)


def test_a_task_list_has_the_answer_to_each_task_alone(plain_client, scene):
    requests = [TaskRequest(**fields) for fields in TASKS]
    response = infer(plain_client, scene, TaskRequest(task_list={"tasks": requests}))
    assert [step.request for step in response.steps] == requests
    expected = [alone(plain_client, scene, request) for request in requests]
    assert [compared(step.response) for step in response.steps] == [compared(each) for each in expected]
    assert (response.text, response.WhichOneof("result")) == ("", None)
    assert response.usage.generated_tokens == sum(step.response.usage.generated_tokens for step in response.steps)


def test_options_of_a_task_list_apply_to_tasks_without_their_own(plain_client, scene):
    request = TaskRequest(
        generation={"max_new_tokens": 4, "num_beams": 1},
        task_list={"tasks": [{"caption": {}}, {"caption": {}, "generation": {"max_new_tokens": 6}}]},
    )
    response = infer(plain_client, scene, request)
    assert [step.response.usage.generated_tokens for step in response.steps] == [4, 6]
    assert response.finish_reason == TaskResponse(finish_reason=2).finish_reason


def test_a_task_that_fails_does_not_lose_the_others(plain_client, scene):
    outside = {"x_min": 5, "y_min": 5, "x_max": 50_000, "y_max": 50_000}
    request = TaskRequest(task_list={"tasks": [{"caption": {}}, {"region_to_ocr": {"region": outside}}, {"ocr": {}}]})
    first, failed, last = infer(plain_client, scene, request).steps
    assert (first.response.text_result.text != "", last.HasField("response")) == (True, True)
    assert failed.error.status == "INVALID_ARGUMENT"
    assert failed.error.message.startswith("task_list.tasks[1].region_to_ocr.region")


def test_a_task_list_fails_if_all_its_tasks_do(plain_client):
    request = TaskRequest(task_list={"tasks": [{"caption": {}}, {"ocr": {}}]})
    with pytest.raises(InferenceServerException, match="IMAGE") as error:
        infer(plain_client, b"not an image", request)
    assert error.value.status() == "StatusCode.INVALID_ARGUMENT"


@pytest.mark.parametrize(("detail", "task"), [(1, "caption"), (2, "detailed_caption"), (3, "more_detailed_caption")])
def test_a_caption_is_grounded_as_by_two_requests(plain_client, scene, detail, task):
    caption, grounding = infer(plain_client, scene, TaskRequest(caption_grounding={"detail": detail})).steps
    expected = alone(plain_client, scene, TaskRequest(**{task: {}}))
    assert compared(caption.response) == compared(expected)
    phrases = TaskRequest(phrase_grounding={"caption": expected.text_result.text})
    assert grounding.request == phrases
    assert compared(grounding.response) == compared(alone(plain_client, scene, phrases))


@pytest.mark.parametrize(
    ("region_task", "task"),
    [(1, "region_to_description"), (2, "region_to_category"), (3, "region_to_ocr"), (4, "region_to_segmentation")],
)
def test_each_region_is_analyzed_as_by_a_request_of_its_own(plain_client, scene, region_task, task):
    steps = infer(plain_client, scene, TaskRequest(region_analysis={"region_task": region_task})).steps
    detection = alone(plain_client, scene, TaskRequest(object_detection={}))
    assert compared(steps[0].response) == compared(detection)
    boxes = [found.bounding_box for found in steps[0].response.detections.detections]
    assert [step.item for step in steps[1:]] == list(range(len(boxes)))
    assert len(boxes) > 1
    for step, box in zip(steps[1:], boxes, strict=True):
        request = TaskRequest(**{task: {"region": box}})
        assert step.request == request
        assert compared(step.response) == compared(alone(plain_client, scene, request))


def test_in_json_a_cascade_is_as_readable_as_a_task(plain_client, scene):
    request = b'{"regionAnalysis": {"regionTask": "REGION_TASK_TEXT", "maxRegions": 1}, "priority": 1}'
    data = plain_client.infer("florence2", tensors([scene], [request])).as_numpy("RESPONSE")[0, 0]
    detection, region = json.loads(data)["steps"]
    assert detection["response"]["detections"]["detections"]
    assert (region["item"], "textResult" in region["response"]) == (0, True)


def test_steps_are_counted_by_their_tasks(server, plain_client, scene):
    def counted(task: str) -> float:
        return metric_sum(server, "florence2_steps_total", outcome="ok", task=task)

    before = counted("detailed_caption")
    infer(plain_client, scene, TaskRequest(caption_grounding={"detail": 2}))
    seconds_until(lambda: counted("detailed_caption") == before + 1, limit=10)


def test_a_limit_of_steps_is_visible_in_the_result(start_server, scene):
    server = start_server(FLORENCE2_MAX_STEPS="2", FLORENCE2_MAX_TASKS="2", FLORENCE2_SLOTS="1")
    with triton.InferenceServerClient(server.grpc_url) as client:
        steps = infer(client, scene, TaskRequest(region_analysis={})).steps
        assert [outcome(step) for step in steps[:2]] == ["OK", "OK"]
        assert {outcome(step) for step in steps[2:]} == {"RESOURCE_EXHAUSTED"}
        too_many = TaskRequest(task_list={"tasks": [{"caption": {}}] * 3})
        with pytest.raises(InferenceServerException, match=r"task_list.tasks: got .*3.*, expected .*2"):
            infer(client, scene, too_many)


def outcome(step: StepResponse) -> str:
    return "OK" if step.HasField("response") else step.error.status


def test_a_caption_does_not_wait_for_all_regions_of_a_page(one_slot, scene):
    """With one slot and none ahead, a caption waits for the generation under way and at most one more."""
    server = one_slot
    tasks = [{"caption": {}, "generation": {"min_new_tokens": 20 + number}} for number in range(60)]
    order: list[str] = []

    def run(name: str, request: TaskRequest) -> None:
        with triton.InferenceServerClient(server.grpc_url) as client:
            infer(client, scene, request)
        order.append(name)

    page = threading.Thread(target=run, args=("page", TaskRequest(task_list={"tasks": tasks})))
    page.start()
    time.sleep(0.4)
    started = time.monotonic()
    run("caption", TaskRequest(caption={}, generation={"max_new_tokens": 3}))
    waited = time.monotonic() - started
    page.join()
    whole = time.monotonic() - started
    assert order == ["caption", "page"]
    assert waited < whole / 4
