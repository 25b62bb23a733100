"""Arguments of the wrong type, and text that cannot be encoded: the errors, and that nothing is sent."""

import pytest
from florence2 import v1
from florence2.client import Keepalive, Retry
from florence2.errors import InvalidArgumentError

pytest_plugins = ["tests.client.fake_server"]

IMAGE = b"an encoded image"
SURROGATE = "a \ud83d cat"
WORDS = "a str or a sequence of str"
FOUR_NUMBERS = "four numbers: x_min, y_min, x_max, y_max in pixels"


@pytest.mark.parametrize(
    ("action", "argument", "accepted"),
    [
        (lambda client: client.caption(IMAGE, 5), "detail", "a str"),
        (lambda client: client.caption(IMAGE, detail=None), "detail", "a str"),
        (lambda client: client.ground(IMAGE, ["a", 3]), r"caption\[1\]", "a str"),
        (lambda client: client.ground(IMAGE, [["a"]]), r"caption\[0\]", "a str"),
        (lambda client: client.ground(IMAGE, None), "caption", WORDS),
        (lambda client: client.ground(IMAGE, b"a cat"), "caption", WORDS),
        (lambda client: client.ground(IMAGE, {"a"}), "caption", WORDS),
        (lambda client: client.detect_open_vocabulary(IMAGE, 7), "query", WORDS),
        (lambda client: client.detect_open_vocabulary(IMAGE, (b"a",)), r"query\[0\]", "a str"),
        (lambda client: client.segment(IMAGE, None), "expression", "a str"),
        (lambda client: client.segment(IMAGE, ["a cat"]), "expression", "a str"),
        (lambda client: client.generate(IMAGE, b"x"), "prompt", "a str"),
        (lambda client: client.segment_region(IMAGE, None), "region", FOUR_NUMBERS),
        (lambda client: client.classify_region(IMAGE, 7), "region", FOUR_NUMBERS),
        (lambda client: client.describe_region(IMAGE, "1234"), "region", FOUR_NUMBERS),
        (lambda client: client.describe_region(IMAGE, b"1234"), "region", FOUR_NUMBERS),
        (lambda client: client.read_region(IMAGE, (1, 2, 3, "4")), "region", FOUR_NUMBERS),
        (lambda client: client.read_region(IMAGE, (1, 2, 3, None)), "region", FOUR_NUMBERS),
        (lambda client: client.run(IMAGE, None), "request", "a TaskRequest"),
        (lambda client: client.run(IMAGE, v1.ObjectDetection()), "request", "a TaskRequest"),
        (lambda client: client.run(IMAGE, "<OD>"), "request", "a TaskRequest"),
        (lambda client: client.is_ready(timeout="5"), "timeout", "a number of seconds"),
        (lambda client: client.health(timeout=None), "timeout", "a number of seconds"),
    ],
)
def test_an_argument_of_the_wrong_type_is_a_type_error_that_names_it(server, use, action, argument, accepted):
    with pytest.raises(TypeError, match=rf"^{argument}: got .* of type \w+, expected {accepted}"):
        use(action)
    assert not server.received


@pytest.mark.parametrize(
    ("action", "field"),
    [
        (lambda client: client.ground(IMAGE, SURROGATE), r"phrase_grounding\.caption"),
        (lambda client: client.ground(IMAGE, ["a", SURROGATE]), r"phrase_grounding\.phrases\[1\]"),
        (lambda client: client.detect_open_vocabulary(IMAGE, SURROGATE), r"open_vocabulary_detection\.query"),
        (lambda client: client.detect_open_vocabulary(IMAGE, [SURROGATE]), r"open_vocabulary_detection\.queries\[0\]"),
        (lambda client: client.segment(IMAGE, SURROGATE), r"referring_expression_segmentation\.expression"),
        (lambda client: client.generate(IMAGE, SURROGATE), r"free_prompt\.text"),
        (lambda client: client.detect(IMAGE, request_id=SURROGATE), "request_id"),
    ],
)
def test_text_that_cannot_be_encoded_as_utf_8_is_rejected_by_its_path(server, use, action, field):
    with pytest.raises(InvalidArgumentError, match=f"^{field}: got .*, expected text that can be encoded as UTF-8"):
        use(action)
    assert not server.received


@pytest.mark.parametrize(
    ("settings", "argument", "accepted"),
    [
        ({"url": None}, "url", WORDS),
        ({"url": 8001}, "url", WORDS),
        ({"url": b"localhost:8001"}, "url", WORDS),
        ({"url": ["localhost:8001", 8001]}, r"url\[1\]", "a str"),
        ({"model": 1}, "model", "a str"),
        ({"model_version": 1}, "model_version", "a str"),
        ({"timeout": "60"}, "timeout", "a number of seconds"),
        ({"tls": True}, "tls", "a TLS"),
        ({"keepalive": 30}, "keepalive", "a Keepalive"),
        ({"retry": 3}, "retry", "a Retry"),
        ({"headers": [("a", "b")]}, "headers", "a Mapping"),
        ({"headers": {1: "a"}}, "headers", "a str"),
    ],
)
def test_a_setting_of_the_wrong_type_is_a_type_error_that_names_it(client_type, settings, argument, accepted):
    with pytest.raises(TypeError, match=rf"^{argument}: got .* of type \w+, expected {accepted}"):
        client_type(**settings)


@pytest.mark.parametrize("secret", [b"swordfish", ["swordfish"], "sw\u00f6rdfish", "swordfish\ud83d"])
def test_an_invalid_secret_is_not_shown(client_type, secret):
    expected = InvalidArgumentError if isinstance(secret, str) else TypeError
    for name, settings in (
        ("access_token", {"access_token": secret}),
        (r"headers\['key'\]", {"headers": {"key": secret}}),
    ):
        with pytest.raises(expected, match=f"^{name}: got ") as caught:
            client_type(**settings)
        assert "rdfish" not in str(caught.value)


@pytest.mark.parametrize("name", ["url", "model", "model_version"])
def test_a_setting_that_cannot_be_encoded_as_utf_8_is_rejected(client_type, name):
    with pytest.raises(InvalidArgumentError, match=f"^{name}: got "):
        client_type(**{name: SURROGATE})


def test_a_token_function_returns_a_str(server, use):
    with pytest.raises(TypeError, match=r"^access_token: got a value of type NoneType, expected a str$"):
        use(lambda client: client.detect(IMAGE), access_token=lambda: None)
    assert not server.received


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Retry(attempts="3"), "retry.attempts"),
        (lambda: Retry(attempts=2.5), "retry.attempts"),
        (lambda: Retry(max_backoff="1"), "retry.max_backoff"),
        (lambda: Keepalive(interval="1"), "keepalive.interval"),
    ],
)
def test_parts_of_a_setting_are_named_with_their_path(make, name):
    with pytest.raises(TypeError, match=f"^{name}: got "):
        make()
