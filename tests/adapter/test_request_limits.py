import base64

import pytest
from florence2.errors import InvalidArgumentError
from florence2_adapter.config import RequestLimits

LIMITS = RequestLimits(max_image_bytes=1000, max_request_bytes=50)


def test_sizes_within_the_limits_pass():
    LIMITS.check(bytes(1000), bytes(50))
    LIMITS.check(base64.b64encode(bytes(1000)), b"")


@pytest.mark.parametrize(
    ("image", "request_", "message"),
    [
        (base64.b64encode(bytes(1004)), b"", "IMAGE: got '1340 bytes', expected at most 1000 bytes"),
        (b"", bytes(51), "REQUEST: got '51 bytes', expected at most 50 bytes"),
    ],
)
def test_what_is_too_large_is_named_with_its_limit(image, request_, message):
    with pytest.raises(InvalidArgumentError) as error:
        LIMITS.check(image, request_)
    assert str(error.value) == message
