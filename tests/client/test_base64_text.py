import base64
import binascii
import tracemalloc
from functools import partial

import pybase64
import pytest
from florence2.base64_text import image_file
from hypothesis import given
from hypothesis import strategies as st

# Contains both characters that differ between the alphabets, and its length requires padding.
FILE = b"\x89PNG\xfb\xef\xbe\xff\xff\xfe" + bytes(range(256)) * 10


def spellings() -> dict[str, bytes]:
    standard, url_safe = base64.b64encode(FILE), base64.urlsafe_b64encode(FILE)
    assert standard.endswith(b"=")
    assert {*b"+/"} <= {*standard}
    return {
        "standard": standard,
        "unpadded": standard.rstrip(b"="),
        "URL-safe": url_safe,
        "URL-safe, unpadded": url_safe.rstrip(b"="),
        "lines": base64.encodebytes(FILE),
        "CRLF lines": base64.encodebytes(FILE).replace(b"\n", b"\r\n"),
        "blanks around": b" \t\n" + standard + b"\n",
        "data URI": b"data:image/png;base64," + standard,
        "of any type": b"data:application/octet-stream;base64," + standard,
        "without a type": b"data:;base64," + standard,
        "with parameters": b'data:image/png;name="a.png";charset=utf-8;base64,' + standard,
        "capitals": b"DATA:Image/PNG;BASE64," + standard,
        "URI, URL-safe": b"data:image/png;base64," + url_safe.rstrip(b"="),
        "URI, white space": b"\n data:image/png;base64,\n" + base64.encodebytes(FILE),
        "URI, escaped": b"data:image/png;base64," + standard.replace(b"+", b"%2B").replace(b"=", b"%3d"),
        "URI, all escaped": b"data:image/png;base64," + escaped(base64.encodebytes(FILE).replace(b"\n", b" \r\n")),
        "URI, URL-safe, escaped": b"data:image/png;base64," + escaped(url_safe),
    }


def escaped(text: bytes) -> bytes:
    """The text with everything except letters and digits percent-encoded."""
    return b"".join(bytes([byte]) if bytes([byte]).isalnum() else b"%%%02X" % byte for byte in text)


@pytest.fixture(params=["client", "server"])
def decoded(request):
    """`image_file` as called by the client, and as called by the server."""
    if request.param == "client":
        return image_file
    return partial(image_file, decode=partial(pybase64.b64decode, validate=True))


@pytest.mark.parametrize("spelling", spellings().values(), ids=spellings())
def test_every_form_of_base64_decodes_to_the_file(spelling, decoded):
    assert decoded(spelling) == FILE


@pytest.mark.parametrize(
    "data",
    [
        FILE,
        b"",
        b"QUJDR",  # five characters are not valid base64
        b"QUI=QUJD",
        b"https://example.com/cat.png",
        b"data:image/svg+xml,<svg/>",
        b"data:image/png;base64",
        b"data:image/png;base64,*",
        b"data:image/png;base64,QUJ%44",
        b"data:image/png;base64,QUJD%",
        b"data:image/png;base64,QUJD%2",
        b"data:image/png;base64,QUJD%252B",
        b"A" * 2000 + b"*",
        b"A" * 2000 + b"*" + b"A" * 2003,
        b"A" * 2001 + b"=AA" + b"A" * 2000,
    ],
)
def test_data_that_is_not_base64_is_left_unchanged(data, decoded):
    assert decoded(data) == data


@given(st.binary(min_size=1, max_size=60), st.booleans(), st.booleans())
def test_any_bytes_survive_the_round_trip(data, is_padded, is_url_safe):
    text = base64.urlsafe_b64encode(data) if is_url_safe else base64.b64encode(data)
    assert image_file(text if is_padded else text.rstrip(b"=")) == data


@given(st.binary(min_size=1, max_size=60), st.integers(0, 79), st.integers(0, 255))
def test_a_single_invalid_byte_is_detected_anywhere(data, place, byte):
    """As by the strict decoder of the standard library."""
    text = bytearray(base64.b64encode(data))
    text[place % len(text)] = byte
    try:
        expected = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        return
    assert image_file(b"data:;base64," + bytes(text)) == expected
    assert pybase64.b64decode(text, validate=True) == expected


@given(st.binary(max_size=60))
def test_no_data_raises_an_error(data):
    assert isinstance(image_file(data), bytes)
    assert isinstance(image_file(b"data:;base64," + data), bytes)


@pytest.mark.parametrize("escape", [b"%41", b"%2B", b"%2b", b"%3D", b"%20", b"%", b"A%2BA"])
def test_escapes_take_no_more_memory_than_the_text_itself(escape, decoded):
    text = b"data:;base64," + escape * (3_000_000 // len(escape))
    tracemalloc.start()
    try:
        decoded(text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * len(text)
