"""Bodies that cost a server much more to read than a caller to send."""

import pytest

from tests.web.conftest import picture

BOUNDARY = "x"
PART = '--{0}\r\nContent-Disposition: form-data; name="{1}"{2}\r\n\r\n{3}\r\n'


def form(*parts: str) -> dict:
    body = "".join(parts) + f"--{BOUNDARY}--\r\n"
    return {"content": body.encode(), "headers": {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}}


def part(name: str, value: str = "", more: str = "") -> str:
    return PART.format(BOUNDARY, name, more, value)


def json_body(text: str) -> dict:
    return {"content": text.encode(), "headers": {"Content-Type": "application/json"}}


@pytest.mark.parametrize(
    "body",
    [
        form(*(part(f"field{number}") for number in range(20_000))),
        form(*(part("image", "x", '; filename="a.png"') for _ in range(5_000))),
        form(part("caption", "x", "".join(f"\r\nX-{number}: y" for number in range(20_000)))),
        form(part("x" * 1_000_000)),
        form(part("caption", "x" * 5_000_000)),
        {**form(part("image")), "content": b"--x\r\n" * 200_000},
        {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
        {"content": b"x", "headers": {"Content-Type": f"multipart/form-data; boundary={'x' * 5000}"}},
        json_body("[" * 1_000_000),
        json_body('{"image": ' + "[" * 100_000 + "]" * 100_000 + "}"),
        json_body('{"num_beams": ' + "9" * 1_000_000 + "}"),
        json_body('{"image": NaN}'),
        json_body('{"image": "\\ud800"}'),
        json_body("\ufeff{"),
        json_body("[" + "[]," * 1_000_000 + "1]"),
        json_body('{"' + "x" * 5_000_000 + '": 1}'),
        json_body('{"a": 1' + "".join(f', "{number}": 1' for number in range(90_000)) + ', "a": 1}'),
        *(json_body(f'{{"region": {"[" * depth}{"]" * depth}}}') for depth in range(850, 1000, 10)),
        {"content": b"\xff\xfe{", "headers": {"Content-Type": "application/json; charset=utf-16"}},
    ],
    ids=[
        *("many fields", "many files", "many headers", "a long name", "a long field", "only boundaries"),
        *("no boundary", "a long boundary", "open lists", "nested lists", "a long number"),
        *("NaN", "a surrogate", "a BOM", "many lists", "a long key", "many keys"),
        *(f"a depth of {depth}" for depth in range(850, 1000, 10)),
        "UTF-16",
    ],
)
def test_a_hostile_body_is_an_invalid_request(app_client, body):
    client = app_client()
    answer = client.post("/v1/caption", **body)
    assert answer.status_code in (400, 413), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.content) < 2000
    assert client.post("/v1/caption", files={"image": picture()}).status_code == 200
