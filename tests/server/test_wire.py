"""The contract, as callers without the florence2 client see it: tritonclient, HTTP, curl."""

import base64
import io
import json
import re
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import PIL.Image
import pytest
import tritonclient.grpc as triton
import tritonclient.http
from florence2.errors import UnavailableError
from florence2.prompts import expand_prompt, render_prompt
from florence2.transports.triton_errors import own_errors
from florence2.v1 import BoundingBox, FinishReason, GenerationOptions, TaskRequest, TaskResponse
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.reference import REGION, TASKS, png
from tests.server.conftest import CALL_SECONDS, infer, tensors
from tests.server.wire_requests import infer_request
from training.demo.sampling import sample_scene
from training.demo.scenes import draw


@pytest.fixture(scope="module")
def scene() -> bytes:
    return png(draw(sample_scene(11)))


def test_the_model_is_ready_and_unary(plain_client):
    assert plain_client.is_model_ready("florence2", "1")
    config = plain_client.get_model_config("florence2").config
    assert not config.model_transaction_policy.decoupled
    assert not config.HasField("dynamic_batching")


@pytest.mark.parametrize("task", TASKS, ids=lambda task: next(iter(task)))
def test_every_tasks_text_is_that_of_generate(plain_client, reference, scene, task):
    case = reference.case(scene, task, {"max_new_tokens": 200})
    response = infer(plain_client, scene, case.request)
    assert response.text == reference.text(case)
    assert response.usage.generated_tokens == len(case.expected) - 1
    assert response.WhichOneof("result") is not None


def test_a_json_request_has_a_json_response(plain_client, scene):
    request = {"regionToCategory": {"region": {"xMin": 1, "yMin": 2, "xMax": 50, "yMax": 60}}}
    result = plain_client.infer("florence2", tensors([scene], [json.dumps(request).encode()]))
    response = json.loads(result.as_numpy("RESPONSE")[0, 0])
    assert response["textResult"]["text"]
    assert response["finishReason"] == "FINISH_REASON_STOP"
    region = {"x_min": 1, "y_min": 2, "x_max": 50, "y_max": 60}
    binary = infer(plain_client, scene, TaskRequest(region_to_category={"region": region}))
    assert binary.text == response["text"]


@pytest.mark.parametrize("start", [b"\n", b"\xef\xbb\xbf", b" \r\n\t "], ids=repr)
def test_json_may_begin_with_white_space_or_a_byte_order_mark(plain_client, scene, start):
    data = start + b'{"object_detection":{}'
    data += b" " * (124 - len(data)) + b"}"  # with a line break, protobuf could take 125 bytes for a caption
    response = json.loads(plain_client.infer("florence2", tensors([scene], [data])).as_numpy("RESPONSE")[0, 0])
    assert response["detections"]["detections"]


@pytest.mark.parametrize(
    "task",
    [
        {"open_vocabulary_detection": {"queries": ["red circle", "blue square"]}},
        {"open_vocabulary_detection": {"query": "red circle<and>blue square"}},
        {"prompt": "<OPEN_VOCABULARY_DETECTION>red circle<and>blue square", "open_vocabulary_detection": {}},
        {"free_prompt": {"text": "<OPEN_VOCABULARY_DETECTION>red circle<and>blue square"}},
        {"phrase_grounding": {"phrases": ["a red circle", "a blue square"]}},
    ],
    ids=str,
)
def test_the_text_for_several_phrases_is_that_of_generate(plain_client, reference, scene, task):
    case = reference.case(scene, task, {"max_new_tokens": 50, "num_beams": 1})
    answer = infer(plain_client, scene, case.request)
    assert answer.text == reference.text(case)
    # The number of tokens (<s>, Locate, ...) shows that the separator is one token.
    text = render_prompt(case.request)
    assert answer.usage.prompt_tokens == len(reference.processor.tokenizer(expand_prompt(text)).input_ids)


def test_a_region_a_pixel_outside_is_the_one_at_the_edge(plain_client, scene):
    width, height = PIL.Image.open(io.BytesIO(scene)).size
    outside = BoundingBox(x_min=-0.0001, y_min=-1, x_max=width + 0.00006, y_max=height + 1)
    whole = BoundingBox(x_min=0, y_min=0, x_max=width, y_max=height)
    answers = [infer(plain_client, scene, TaskRequest(region_to_ocr={"region": region})) for region in (outside, whole)]
    assert answers[0].text == answers[1].text


def test_plain_tritonclient_over_http(server, scene):
    client = tritonclient.http.InferenceServerClient(server.http_url.removeprefix("http://"))
    inputs = []
    for name, value in (("IMAGE", scene), ("REQUEST", TaskRequest(object_detection={}).SerializeToString())):
        tensor = tritonclient.http.InferInput(name, [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[value]], dtype=np.object_))
        inputs.append(tensor)
    response = TaskResponse.FromString(client.infer("florence2", inputs).as_numpy("RESPONSE")[0, 0])
    assert response.detections.detections
    client.close()


def test_curl_and_the_generate_endpoint(server, scene, tmp_path):
    body = {"IMAGE": base64.b64encode(scene).decode(), "REQUEST": '{"object_detection":{}}'}
    (tmp_path / "body.json").write_text(json.dumps(body))
    command = ["curl", "--silent", "--fail", f"{server.http_url}/v2/models/florence2/generate", "-d", "@body.json"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, timeout=CALL_SECONDS).stdout
    response = json.loads(json.loads(answer)["RESPONSE"])
    assert response["detections"]["detections"][0]["boundingBox"]["xMax"] > 0


def test_a_raw_answer_is_not_decoded(plain_client, scene):
    response = infer(plain_client, scene, TaskRequest(object_detection={}, raw=True))
    assert response.text.startswith("</s><s>")
    assert response.WhichOneof("result") is None


def test_a_truncated_answer_has_finish_reason_length(plain_client, scene):
    options = GenerationOptions(max_new_tokens=4)
    response = infer(plain_client, scene, TaskRequest(object_detection={}, generation=options))
    assert response.finish_reason == FinishReason.FINISH_REASON_LENGTH
    assert response.usage.generated_tokens == 4


def test_a_prompt_rendered_by_the_caller_is_the_same_request(plain_client, scene):
    rendered = infer(plain_client, scene, TaskRequest(prompt="<OD>"))
    assert rendered.text == infer(plain_client, scene, TaskRequest(object_detection={})).text
    assert rendered.detections.detections


def test_the_responses_of_batch_elements_are_in_their_order(plain_client, reference, scene):
    cases = [reference.case(scene, task, {"max_new_tokens": 50}) for task in TASKS[:5]]
    requests = [case.request.SerializeToString() for case in cases]
    responses = plain_client.infer("florence2", tensors([scene] * 5, requests)).as_numpy("RESPONSE")
    assert responses.shape == (5, 1)
    texts = [TaskResponse.FromString(response).text for response in responses[:, 0]]
    assert texts == [reference.text(case) for case in cases]


def test_more_batch_elements_than_slots_are_all_answered(plain_client, scene):
    wanted = [2 + index % 7 for index in range(16)]
    requests = [TaskRequest(caption={}, generation={"min_new_tokens": n, "max_new_tokens": n}) for n in wanted]
    inputs = tensors([scene] * 16, [request.SerializeToString() for request in requests])
    with ThreadPoolExecutor(4) as callers:
        results = list(callers.map(lambda _: plain_client.infer("florence2", inputs), range(4)))
    for result in results:
        responses = [TaskResponse.FromString(response) for response in result.as_numpy("RESPONSE")[:, 0]]
        assert [response.usage.generated_tokens for response in responses] == wanted


def test_an_invalid_request_is_rejected_each_time(plain_client, scene):
    """Triton's response cache would answer the second one, with a success that has no outputs."""
    request = TaskRequest(caption={}, generation={"max_new_tokens": -7}).SerializeToString()
    for _ in range(2):
        assert error_of(plain_client, tensors([scene], [request])).status() == "StatusCode.INVALID_ARGUMENT"


def error_of(client: triton.InferenceServerClient, inputs: list[triton.InferInput]) -> InferenceServerException:
    with pytest.raises(InferenceServerException) as error:
        client.infer("florence2", inputs, client_timeout=CALL_SECONDS)
    return error.value


OUTSIDE = {"x_min": 0, "y_min": 0, "x_max": 100_000, "y_max": 10}
BAD_REQUESTS = {
    "no task": (TaskRequest(), "task"),
    "empty phrase": (TaskRequest(phrase_grounding={"caption": "  "}), "phrase_grounding.caption"),
    "empty expression": (
        TaskRequest(referring_expression_segmentation={}),
        r"^referring_expression_segmentation\.expression: ",
    ),
    "empty query": (TaskRequest(open_vocabulary_detection={"query": ""}), r"^open_vocabulary_detection\.query: "),
    "empty phrase among others": (
        TaskRequest(phrase_grounding={"phrases": ["a cat", " "]}),
        r"^phrase_grounding\.phrases\[1\]: ",
    ),
    "caption and phrases": (
        TaskRequest(phrase_grounding={"caption": "a cat", "phrases": ["a cat"]}),
        r"^phrase_grounding\.phrases: .* not both",
    ),
    "empty free prompt": (TaskRequest(free_prompt={"text": ""}), "free_prompt.text"),
    "no region": (TaskRequest(region_to_ocr={}), "region_to_ocr.region"),
    "region outside": (
        TaskRequest(region_to_ocr={"region": OUTSIDE}),
        r"^region_to_ocr\.region\.x_max: .*100000.*image",
    ),
    "region inverted": (
        TaskRequest(region_to_ocr={"region": {"x_min": 9, "y_min": 0, "x_max": 3, "y_max": 10}}),
        r"^region_to_ocr\.region\.x_max: got 3",
    ),
    "prompt too long": (
        TaskRequest(phrase_grounding={"caption": "a cat " * 600}),
        r"^phrase_grounding\.caption: .*tokens",
    ),
    "too many new tokens": (
        TaskRequest(caption={}, generation={"max_new_tokens": 5000}),
        r"generation.max_new_tokens: got 5000, expected 1 to",
    ),
    "no new tokens": (TaskRequest(caption={}, generation={"max_new_tokens": 0}), "max_new_tokens: got 0"),
    "beams": (TaskRequest(caption={}, generation={"num_beams": 9}), "num_beams: got 9, expected 1 to 8"),
    "ngram size": (TaskRequest(caption={}, generation={"no_repeat_ngram_size": -3}), "no_repeat_ngram_size"),
    "repetition penalty": (
        TaskRequest(caption={}, generation={"repetition_penalty": 0}),
        "generation.repetition_penalty: got 0.0, expected 0.1 to 10",
    ),
    "words after a task without any": (TaskRequest(prompt="<OD> a cat"), "<OD>"),
}


@pytest.mark.parametrize(("request_", "message"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_an_invalid_request_gets_a_clear_error(plain_client, scene, request_, message):
    error = error_of(plain_client, tensors([scene], [request_.SerializeToString()]))
    assert error.status() == "StatusCode.INVALID_ARGUMENT"
    assert re.search(message, error.message()), error.message()


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"\xff\xff", "REQUEST"), (b"{broken", "REQUEST"), (b'{"no_such_task": {}}', "no_such_task"), (b"", "task")],
)
def test_garbage_for_a_request_gets_a_clear_error(plain_client, scene, data, message):
    error = error_of(plain_client, tensors([scene], [data]))
    assert error.status() == "StatusCode.INVALID_ARGUMENT"
    assert message in error.message()


def test_a_bad_image_gets_a_clear_error(plain_client, scene):
    for image, message in ((b"", "IMAGE"), (b"no image", "IMAGE"), (scene[: len(scene) // 2], "undamaged")):
        error = error_of(plain_client, tensors([image], [TaskRequest(caption={}).SerializeToString()]))
        assert error.status() == "StatusCode.INVALID_ARGUMENT"
        assert message in error.message()


@pytest.mark.parametrize(
    ("image", "request_", "message"),
    [
        (bytes(60_000_000), TaskRequest(caption={}), r"IMAGE: got '60000000 bytes', expected at most 41943040 bytes"),
        (b"GIF", TaskRequest(prompt="a cat " * 12_000), r"REQUEST: got '72005 bytes', expected at most 65536 bytes"),
    ],
    ids=["image", "prompt"],
)
def test_what_is_too_large_is_rejected_before_it_is_parsed(plain_client, image, request_, message):
    error = error_of(plain_client, tensors([image], [request_.SerializeToString()]))
    assert error.status() == "StatusCode.INVALID_ARGUMENT"
    assert re.search(message, error.message()), error.message()


def test_more_batch_elements_than_the_config_allows_are_rejected(plain_client, scene):
    request = TaskRequest(caption={}, generation={"max_new_tokens": 2}).SerializeToString()
    error = error_of(plain_client, tensors([scene] * 17, [request] * 17))
    assert error.status() == "StatusCode.INVALID_ARGUMENT"
    assert "<= 16" in error.message()


@pytest.mark.parametrize("shape", [[1], [1, 2], [1, 0], [0, 1]])
def test_tensors_of_a_wrong_shape_get_a_clear_error(plain_client, scene, shape):
    inputs = []
    for name, value in (("IMAGE", scene), ("REQUEST", TaskRequest(caption={}).SerializeToString())):
        tensor = triton.InferInput(name, shape, "BYTES")
        tensor.set_data_from_numpy(np.full(shape, value, dtype=np.object_))
        inputs.append(tensor)
    assert error_of(plain_client, inputs).status() == "StatusCode.INVALID_ARGUMENT"


def test_a_truncated_tensor_is_rejected_with_the_message_that_our_clients_know(server, scene):
    """Triton rejects other requests together with it, so clients have to tell that from an error of their own."""
    message = infer_request(scene, TaskRequest(caption={}).SerializeToString())
    message.raw_input_contents[0] = message.raw_input_contents[0][:-1]
    with grpc.insecure_channel(server.grpc_url) as channel, pytest.raises(grpc.RpcError) as caught:
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=CALL_SECONDS)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(UnavailableError), own_errors(threading.Event()):
        raise InferenceServerException(caught.value.details(), status=str(caught.value.code()))


def test_an_invalid_batch_element_fails_its_request_and_is_named(plain_client, scene):
    good, bad = (
        TaskRequest(caption={}),
        TaskRequest(region_to_ocr={"region": REGION}, generation={"max_new_tokens": -1}),
    )
    error = error_of(plain_client, tensors([scene] * 2, [good.SerializeToString(), bad.SerializeToString()]))
    assert error.status() == "StatusCode.INVALID_ARGUMENT"
    assert error.message().startswith("batch element 1: generation.max_new_tokens: got -1")
