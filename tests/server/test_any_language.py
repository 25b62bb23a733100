"""What docs/any-grpc-language.md promises callers who have nothing but the generated messages."""

import base64
import json
import struct
import urllib.request

import grpc
import pytest
from florence2.v1 import StreamEvent, TaskRequest, TaskResponse
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.conftest import EXAMPLE_SCENE
from tests.server.conftest import CALL_SECONDS
from tests.server.wire_requests import add_tensor, element, infer_request

IMAGE = EXAMPLE_SCENE.read_bytes()
READ = TaskRequest(ocr={})


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(server.grpc_url) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def call(stub, message: service_pb2.ModelInferRequest) -> service_pb2.ModelInferResponse:
    return stub.ModelInfer(message, timeout=CALL_SECONDS)


def refusal(stub, message: service_pb2.ModelInferRequest) -> tuple[grpc.StatusCode, str]:
    """The status and the message of a call that fails."""
    with pytest.raises(grpc.RpcError) as caught:
        call(stub, message)
    return caught.value.code(), caught.value.details()


def framed(content: bytes) -> list[bytes]:
    """The elements of a BYTES tensor, as the page says."""
    elements = []
    while content:
        (length,) = struct.unpack("<I", content[:4])
        elements.append(content[4 : 4 + length])
        content = content[4 + length :]
    return elements


def stream(stub, model: str = "florence2_stream") -> list[service_pb2.ModelStreamInferResponse]:
    message = service_pb2.ModelInferRequest(model_name=model)
    for name, data in (("IMAGE", IMAGE), ("REQUEST", READ.SerializeToString())):
        add_tensor(message, name, [1], "BYTES", element(data))
    return list(stub.ModelStreamInfer(iter([message]), timeout=CALL_SECONDS))


def test_a_response_is_one_element_behind_its_length(stub):
    answer = call(stub, infer_request(IMAGE, READ.SerializeToString()))
    (output,), (content,) = answer.outputs, answer.raw_output_contents
    assert (output.name, output.datatype, output.shape) == ("RESPONSE", "BYTES", [1, 1])
    (only,) = framed(content)
    assert TaskResponse.FromString(only).text_result.text == "CAFE OPEN"


def test_bytes_contents_have_no_lengths(stub):
    message = service_pb2.ModelInferRequest(model_name="florence2")
    for name, data in (("IMAGE", IMAGE), ("REQUEST", READ.SerializeToString())):
        message.inputs.add(name=name, shape=[1, 1], datatype="BYTES").contents.bytes_contents.append(data)
    (only,) = framed(call(stub, message).raw_output_contents[0])
    assert TaskResponse.FromString(only).text_result.text == "CAFE OPEN"


def test_both_forms_in_one_request_are_rejected(stub):
    message = infer_request(IMAGE, READ.SerializeToString())
    message.inputs[0].contents.bytes_contents.append(IMAGE)
    assert refusal(stub, message)[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_the_elements_of_a_batch_follow_each_other(stub):
    requests = [READ, TaskRequest(object_detection={}), READ]
    message = service_pb2.ModelInferRequest(model_name="florence2")
    for name, elements in (("IMAGE", [IMAGE] * 3), ("REQUEST", [each.SerializeToString() for each in requests])):
        add_tensor(message, name, [3, 1], "BYTES", b"".join(map(element, elements)))
    answers = [TaskResponse.FromString(each) for each in framed(call(stub, message).raw_output_contents[0])]
    assert [each.WhichOneof("result") for each in answers] == ["text_result", "detections", "text_result"]


def test_the_message_for_an_invalid_request_has_the_form_that_the_page_shows(stub):
    region = {"x_max": 9999, "y_max": 10}
    message = infer_request(IMAGE, TaskRequest(region_to_ocr={"region": region}).SerializeToString())
    assert refusal(stub, message) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "region_to_ocr.region.x_max: got 9999.0, expected at most 641, the image's width plus a pixel",
    )


def test_a_deadline_in_the_request_is_unavailable_and_says_so(stub):
    # The answer takes seconds; one that is complete a tenth of a second after its deadline may still be sent.
    request = TaskRequest(ocr={}, generation={"min_new_tokens": 400, "max_new_tokens": 400}, timeout_seconds=0.05)
    status, text = refusal(stub, infer_request(IMAGE, request.SerializeToString()))
    assert (status, text.partition(":")[0]) == (grpc.StatusCode.UNAVAILABLE, "deadline exceeded")


def test_another_model_is_not_found(stub):
    message = infer_request(IMAGE, READ.SerializeToString())
    message.model_name = "florence3"
    assert refusal(stub, message)[0] is grpc.StatusCode.NOT_FOUND


def test_a_stream_ends_with_its_response(stub):
    contents = [response.infer_response.raw_output_contents[0] for response in stream(stub)]
    *others, last = [StreamEvent.FromString(only) for content in contents for only in framed(content)]
    assert last.response.text == "".join(event.text_delta for event in others)


def test_tritons_own_error_of_a_stream_is_a_text_beside_an_empty_response(stub):
    (response,) = stream(stub, "florence3")
    assert "florence3" in response.error_message
    assert response.HasField("infer_response")
    assert not response.infer_response.raw_output_contents


def over_http(server, path: str, request: dict) -> list[dict]:
    """The answers to a request in JSON, as they were sent."""
    body = {"IMAGE": base64.encodebytes(IMAGE).decode(), "REQUEST": json.dumps(request)}
    url, headers = f"{server.http_url}/v2/models/{path}", {"Content-Type": "application/json"}
    post = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(post, timeout=CALL_SECONDS) as answer:
        lines = [line.removeprefix(b"data: ") for line in answer if line.strip()]
    return [json.loads(json.loads(line)["RESPONSE"]) for line in lines]


def test_json_says_explicitly_that_nothing_was_found(server):
    request = {"object_detection": {}, "generation": {"max_new_tokens": 1}}
    (answer,) = over_http(server, "florence2/generate", request)
    assert answer["detections"] == {"detections": []}
    assert answer["steps"] == []
    assert "textResult" not in answer


def test_json_events_say_the_number_of_the_first_step(server):
    *_, last = events = over_http(server, "florence2_stream/generate_stream", {"object_detection": {}})
    assert {event["step"] for event in events} == {0}
    assert all(item["polygons"] == [] for item in last["response"]["detections"]["detections"])
