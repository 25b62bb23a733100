import base64
import re

import numpy as np
import pytest
from florence2.errors import InvalidArgumentError
from florence2.plans import DEFAULT_LIMITS, PlanRun
from florence2.v1 import TaskRequest
from florence2_server.config import RequestLimits
from florence2_server.stub.batch import BatchElement, ElementLimits, batch_elements, check_sizes
from florence2_server.stub.image_files import ImageFiles

LIMITS = RequestLimits(max_image_bytes=1000, max_request_bytes=50)


def test_sizes_within_the_limits_pass():
    check_sizes(bytes(1000), bytes(50), LIMITS)
    lines = b"\r\n".join(re.findall(rb".{1,64}", base64.b64encode(bytes(1000))))
    check_sizes(b"data:image/png;base64,\r\n" + lines, b"", LIMITS)


@pytest.mark.parametrize(
    ("image", "request_", "message"),
    [
        (base64.b64encode(bytes(1800)), b"", "IMAGE: got '2400 bytes', expected at most 1000 bytes"),
        (b"", bytes(51), "REQUEST: got '51 bytes', expected at most 50 bytes"),
    ],
)
def test_an_element_that_is_too_large_is_named_with_the_limit(image, request_, message):
    with pytest.raises(InvalidArgumentError) as error:
        check_sizes(image, request_, LIMITS)
    assert str(error.value) == message


def element_of(request: bytes) -> BatchElement:
    tensors = [np.array([[value]], dtype=np.object_) for value in (b"an image", request)]
    limits = ElementLimits(RequestLimits(), DEFAULT_LIMITS)
    (element,) = batch_elements(*tensors, limits, ImageFiles())
    return element


@pytest.mark.parametrize(
    "request_",
    [
        TaskRequest(caption_grounding={}, adapter="tags-2").SerializeToString(),
        b'{"captionGrounding": {}, "adapter": "tags-2"}',
    ],
    ids=["protobuf", "json"],
)
def test_the_adapter_of_a_request_is_sent_to_the_engine(request_):
    element = element_of(request_)
    (step,) = PlanRun(element.request).start()
    assert element.generate_request(step.request).adapter == "tags-2"


def test_without_an_adapter_the_engine_is_sent_none():
    element = element_of(b'{"caption": {}}')
    assert element.generate_request(element.request).adapter == ""


@pytest.mark.parametrize("name", ["a b", "../a", "a" * 65, "a\n", "a\0", "t\u0430gs", "\uff54ags"])
def test_what_cannot_be_the_name_of_an_adapter_is_rejected(name):
    with pytest.raises(InvalidArgumentError, match=r"^adapter: got '.*, expected 1 to 64 letters"):
        element_of(TaskRequest(caption={}, adapter=name).SerializeToString())
