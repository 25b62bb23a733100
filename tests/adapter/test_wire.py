import json

import pytest
from florence2.errors import InvalidArgumentError
from florence2.v1 import FinishReason, ImageSize, TaskRequest, TaskResponse
from florence2_adapter.wire import Encoding, parse_request, serialize_response


def test_a_binary_request_is_answered_in_binary():
    request = TaskRequest(caption={}, raw=True)
    assert parse_request(request.SerializeToString()) == (request, Encoding.BINARY)
    response = TaskResponse(text="</s><s>größe</s>")
    assert TaskResponse.FromString(serialize_response(response, Encoding.BINARY)) == response


def test_a_json_request_is_answered_in_json():
    request, encoding = parse_request(b'{"region_to_ocr": {"region": {"xMin": 1, "y_max": 2.5}}, "raw": false}')
    assert request.region_to_ocr.region.y_max == 2.5
    assert encoding is Encoding.JSON
    response = TaskResponse(
        text="größe", image_size=ImageSize(width=3, height=2), finish_reason=FinishReason.FINISH_REASON_STOP
    )
    assert json.loads(serialize_response(response, Encoding.JSON)) == {
        "text": "größe",
        "imageSize": {"width": 3, "height": 2},
        "finishReason": "FINISH_REASON_STOP",
    }


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
def test_garbage_is_refused_with_its_beginning(data):
    with pytest.raises(InvalidArgumentError, match="REQUEST: got b'"):
        parse_request(data)


def test_long_garbage_is_shortened():
    with pytest.raises(InvalidArgumentError) as error:
        parse_request(b"\xff" * 1_000_000)
    assert len(str(error.value)) < 300
