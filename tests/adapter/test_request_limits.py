import base64
import re

import pytest
from florence2.errors import InvalidArgumentError
from florence2_adapter.config import RequestLimits

LIMITS = RequestLimits(max_image_bytes=1000, max_request_bytes=50)


def test_sizes_within_the_limits_pass():
    LIMITS.check(bytes(1000), bytes(50))
    lines = b"\r\n".join(re.findall(rb".{1,64}", base64.b64encode(bytes(1000))))
    LIMITS.check(b"data:image/png;base64,\r\n" + lines, b"")


@pytest.mark.parametrize(
    ("image", "request_", "message"),
    [
        (base64.b64encode(bytes(1800)), b"", "IMAGE: got '2400 bytes', expected at most 1000 bytes"),
        (b"", bytes(51), "REQUEST: got '51 bytes', expected at most 50 bytes"),
    ],
)
def test_what_is_too_large_is_named_with_its_limit(image, request_, message):
    with pytest.raises(InvalidArgumentError) as error:
        LIMITS.check(image, request_)
    assert str(error.value) == message
