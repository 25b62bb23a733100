import json

import pytest
from florence2 import v1
from florence2.errors import InvalidArgumentError
from florence2.v1 import FinishReason, ImageSize, TaskRequest, TaskResponse
from florence2_server.stub.wire import Encoding, parse_request, serialize
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import DescriptorProto
from hypothesis import given, settings
from hypothesis import strategies as st

# The same examples in every run.
repeatable = settings(max_examples=300, deadline=None, derandomize=True, database=None)

BOM = b"\xef\xbb\xbf"
json_blanks = st.lists(st.sampled_from(b" \t\r\n"), max_size=5).map(bytes)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=150)
floats = st.floats(width=32, allow_nan=False)
boxes = st.builds(v1.BoundingBox, x_min=floats, y_min=floats, x_max=floats, y_max=floats)
inputs = {"caption": words, "expression": words, "query": words, "text": words, "region": boxes}
inputs |= {"phrases": st.lists(words, max_size=5), "queries": st.lists(words, max_size=5)}
inputs |= {"detail": st.integers(0, 3), "region_task": st.integers(0, 4), "max_regions": st.integers(-9, 99)}
inputs |= {
    field.name: st.just(getattr(v1, field.message_type.name)())
    for field in v1.RegionAnalysis.DESCRIPTOR.oneofs_by_name["detector"].fields
}
inputs |= {"tasks": st.lists(st.builds(TaskRequest, prompt=words, raw=st.booleans()), max_size=3)}


@st.composite
def requests(draw) -> TaskRequest:
    """Any TaskRequest, valid or not."""
    request = TaskRequest(raw=draw(st.booleans()), prompt=draw(st.just("") | words), priority=draw(st.integers(0, 3)))
    request.timeout_seconds = draw(st.sampled_from([0, 0.25, 1e9]))
    request.adapter = draw(st.just("") | words)
    if draw(st.booleans()):
        request.generation.max_new_tokens = draw(st.integers(-(2**31), 2**31 - 1))
    task = draw(st.sampled_from([None, *TaskRequest.DESCRIPTOR.oneofs_by_name["task"].fields]))
    if task is not None:
        message = getattr(request, task.name)
        message.SetInParent()
        fields = {field.name: draw(inputs[field.name]) for field in task.message_type.fields}
        message.MergeFrom(type(message)(**fields))
    return request


@given(requests())
@repeatable
def test_no_request_in_protobuf_is_read_as_json(request_):
    assert parse_request(request_.SerializeToString()) == (request_, Encoding.BINARY)


@given(requests(), st.sampled_from([b"", BOM]), json_blanks, json_blanks, st.sampled_from([None, 2]))
@repeatable
def test_no_request_in_json_is_read_as_protobuf(request_, mark, before, after, indent):
    text = json_format.MessageToJson(request_, indent=indent, ensure_ascii=False).encode()
    assert parse_request(mark + before + text + after) == (request_, Encoding.JSON)


@pytest.mark.parametrize("length", range(30, 300))
def test_json_of_any_length_is_not_read_as_a_caption(length):
    # A line break and a brace are also the tag of `caption` and a length of 123 bytes.
    text = b'\n{"object_detection":{}'
    request, encoding = parse_request(text + b" " * (length - len(text) - 1) + b"}")
    assert request == TaskRequest(object_detection={})
    assert encoding is Encoding.JSON
    with pytest.raises(InvalidArgumentError, match=r"REQUEST: got .* in JSON"):
        parse_request(text + b" " * (length - len(text)))


def test_a_caption_with_future_fields_cannot_start_like_json():
    # Field numbers with a one-byte tag, which could be mistaken for JSON, are reserved; see wire.py.
    caption = DescriptorProto()
    v1.Caption.DESCRIPTOR.CopyToProto(caption)
    assert [(each.start, each.end) for each in caption.reserved_range] == [(1, 16)]
    first_bytes = {bytes([field.number << 3 | 2])[0] for field in TaskRequest.DESCRIPTOR.fields if field.number < 16}
    assert first_bytes & set(b" \t\r\n{") == {ord("\n")}
    to_come = b"\n{" + b"\x82\x01\x78" + b"x" * 120
    assert parse_request(to_come)[0].WhichOneof("task") == "caption"
    assert parse_request(to_come)[1] is Encoding.BINARY


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("blank", ["", "\n"])
def test_json_in_another_encoding_is_rejected(encoding, blank):
    with pytest.raises(InvalidArgumentError, match=r"REQUEST: got .* expected .*JSON"):
        parse_request(f'{blank}{{"ocr": {{}}}}'.encode(encoding))


def test_utf_16_is_recognized():
    with pytest.raises(InvalidArgumentError, match=r"in UTF-8 \(it looks like UTF-16"):
        parse_request('{"ocr": {}}'.encode("utf-16"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"a":' * 10_000, "recursion"),
        (b"\n" + b'{"prompt":' + b"[" * 60_000, "recursion"),
        (b'{"generation": {"max_new_tokens": ' + b"9" * 5000 + b"}}", "digits"),
        (b' {"prompt": "\\ud800"}', r"prompt.*Unpaired surrogate"),
        (b'{"prompt": "\\udc80\\ud800"}', r"prompt.*Unpaired surrogate"),
        (b'{"caption": {}}{"ocr": {}}', "Extra data"),
        (b'{"ocr": {}, "ocr": {}}', "duplicate key"),
        (BOM + BOM + b'{"ocr": {}}', "Error parsing message"),
    ],
)
def test_a_malformed_request_is_rejected_with_the_reason(data, reason):
    with pytest.raises(InvalidArgumentError, match=rf"REQUEST: got b.* expected a florence2.v1.TaskRequest .*{reason}"):
        parse_request(data)


def test_a_binary_request_is_answered_in_binary():
    request = TaskRequest(caption={}, raw=True)
    assert parse_request(request.SerializeToString()) == (request, Encoding.BINARY)
    response = TaskResponse(text="</s><s>größe</s>")
    assert TaskResponse.FromString(serialize(response, Encoding.BINARY)) == response


def test_a_json_request_is_answered_in_json():
    request, encoding = parse_request(b'{"region_to_ocr": {"region": {"xMin": 1, "y_max": 2.5}}, "raw": false}')
    assert request.region_to_ocr.region.y_max == 2.5
    assert encoding is Encoding.JSON
    response = TaskResponse(
        text="größe", image_size=ImageSize(width=3, height=2), finish_reason=FinishReason.FINISH_REASON_STOP
    )
    assert json.loads(serialize(response, Encoding.JSON)) == {
        "text": "größe",
        "imageSize": {"width": 3, "height": 2},
        "finishReason": "FINISH_REASON_STOP",
        "tokenLogProbabilities": [],
        "tokenEnds": [],
        "tokenMasses": [],
        "steps": [],
    }


def test_json_includes_what_is_empty_and_leaves_out_what_is_not_set():
    found = TaskResponse(detections={"detections": [v1.Detection(bounding_box={})]})
    assert json.loads(serialize(TaskResponse(detections={}), Encoding.JSON))["detections"] == {"detections": []}
    assert json.loads(serialize(found, Encoding.JSON))["detections"]["detections"] == [
        {"label": "", "boundingBox": {"xMin": 0, "yMin": 0, "xMax": 0, "yMax": 0}, "polygons": []}
    ]
    assert json.loads(serialize(v1.StreamEvent(text_delta=""), Encoding.JSON)) == {"step": 0, "textDelta": ""}


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff",
        b"zzz",
        b"{",
        b'{"unknown_task": {}}',
        b'{"caption": 3}',
        b"{\xff}",
        b'{"caption": {}, "ocr": {}}',
    ],
)
def test_garbage_is_rejected_with_its_first_bytes(data):
    with pytest.raises(InvalidArgumentError, match="REQUEST: got b'"):
        parse_request(data)


def test_long_garbage_is_shortened_in_the_message():
    with pytest.raises(InvalidArgumentError) as error:
        parse_request(b"\xff" * 1_000_000)
    assert len(str(error.value)) < 300


def test_unknown_fields_are_not_repeated_in_responses():
    data = TaskRequest(caption={}).SerializeToString() + b"\xfa\x3f\x03abc"  # field 1023
    assert parse_request(data) == (TaskRequest(caption={}), Encoding.BINARY)
    assert parse_request(data)[0].SerializeToString() == TaskRequest(caption={}).SerializeToString()
