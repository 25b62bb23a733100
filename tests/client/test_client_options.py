"""Options of the methods: how they are sent, and which values are rejected."""

import numpy as np
import pytest
from florence2 import v1
from florence2.errors import DeadlineExceededError, InvalidArgumentError

from tests.client.fake_server import WAIT_SECONDS

pytest_plugins = ["tests.client.fake_server"]

IMAGE = b"an encoded image"
DETECTION = v1.TaskRequest(object_detection=v1.ObjectDetection())


def test_without_options_the_checkpoint_decides(server, use):
    use(lambda client: client.detect(IMAGE))
    assert not server.last.request.HasField("generation")


def test_every_generation_option_is_sent(server, use):
    options = {
        "max_new_tokens": 100,
        "min_new_tokens": 0,
        "num_beams": 3,
        "length_penalty": 0.5,
        "no_repeat_ngram_size": 0,
        "repetition_penalty": 1.5,
        "suppress_bos": False,
    }
    use(lambda client: client.caption(IMAGE, **options, early_stopping=True))
    sent = server.last.request.generation
    assert sent == v1.GenerationOptions(**options, early_stopping=v1.EarlyStopping.EARLY_STOPPING_FIRST)
    # Zero and False are values, not missing ones.
    assert all(sent.HasField(name) for name in options)


@pytest.mark.parametrize(("given", "name"), [(True, "FIRST"), (False, "HEURISTIC"), ("never", "NEVER")])
def test_early_stopping_has_the_values_of_hugging_face(server, use, given, name):
    use(lambda client: client.detect(IMAGE, early_stopping=given))
    assert server.last.request.generation.early_stopping == v1.EarlyStopping.Value(f"EARLY_STOPPING_{name}")


def test_none_is_the_same_as_omitting_an_option(server, use):
    use(lambda client: client.detect(IMAGE, max_new_tokens=None, early_stopping=None, priority=None))
    assert not server.last.request.HasField("generation")
    assert "priority" not in server.last.message.parameters


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", 2**31),
        ("length_penalty", float("nan")),
        ("repetition_penalty", 0),
        ("early_stopping", "always"),
    ],
)
def test_a_value_out_of_range_names_its_option(server, use, option, value):
    with pytest.raises(InvalidArgumentError, match=f"generation.{option}: got "):
        use(lambda client: client.detect(IMAGE, **{option: value}))
    assert not server.received


@pytest.mark.parametrize(
    ("option", "value", "accepted"),
    [
        ("max_new_tokens", "many", "an int"),
        ("max_new_tokens", True, "an int"),
        ("num_beams", 1.5, "an int"),
        ("length_penalty", "1", "a number"),
        ("length_penalty", False, "a number"),
        ("repetition_penalty", "1.2x", "a number"),
        ("suppress_bos", "yes", "a bool"),
        ("suppress_bos", 1, "a bool"),
        ("early_stopping", [], "True, False or"),
        ("early_stopping", 1, "True, False or"),
        ("priority", "high", "an int"),
        ("priority", 1.5, "an int"),
        ("priority", True, "an int"),
        ("timeout", "5", "a number of seconds"),
        ("timeout", True, "a number of seconds"),
        ("request_id", 7, "a str"),
        ("request_id", b"mine", "a str"),
    ],
)
def test_an_option_of_the_wrong_type_is_a_type_error(server, use, option, value, accepted):
    with pytest.raises(TypeError, match=f"^{option}: got .*, expected {accepted}"):
        use(lambda client: client.detect(IMAGE, **{option: value}))
    assert not server.received


def test_numpy_numbers_are_accepted(server, use):
    options = {"max_new_tokens": np.int64(5), "length_penalty": np.float32(0.5), "priority": np.int32(2)}
    use(lambda client: client.detect(IMAGE, **options, timeout=np.float64(WAIT_SECONDS)))
    assert server.last.request.generation == v1.GenerationOptions(max_new_tokens=5, length_penalty=0.5)
    assert server.last.message.parameters["priority"].uint64_param == 2


def test_an_unknown_keyword_is_a_type_error(server, use):
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'max_tokens', expected one of .*max_new_tokens"):
        use(lambda client: client.detect(IMAGE, max_tokens=5))
    known = "labels, max_items, min_score, priority, request_id, timeout"
    with pytest.raises(TypeError, match=f"unexpected keyword argument 'num_beams', expected one of {known}$"):
        use(lambda client: client.run(IMAGE, DETECTION, num_beams=3))
    assert not server.received


def test_every_request_has_an_id(server, use):
    use(lambda client: client.detect(IMAGE, request_id="mine"))
    use(lambda client: client.detect(IMAGE))
    use(lambda client: client.run(IMAGE, DETECTION))
    named, *unnamed = [received.message.id for received in server.received]
    assert named == "mine"
    assert all(unnamed)
    assert len(set(unnamed)) == len(unnamed)


@pytest.mark.parametrize("priority", [1, 2, 3])
def test_the_priority_is_sent_in_the_request_and_to_tritons_queue(server, use, priority):
    use(lambda client: client.detect(IMAGE, priority=priority))
    assert server.last.request.priority == priority
    assert server.last.message.parameters["priority"].uint64_param == priority


def test_without_a_priority_the_server_decides(server, use):
    use(lambda client: client.run(IMAGE, DETECTION))
    use(lambda client: client.run(IMAGE, DETECTION, priority=0))
    assert [received.request.priority for received in server.received] == [0, 0]
    assert all("priority" not in received.message.parameters for received in server.received)


def test_priority_and_timeout_of_a_request_count_unless_there_are_options(server, use):
    request = v1.TaskRequest(object_detection={}, priority=3, timeout_seconds=4)
    before = request.SerializeToString()
    use(lambda client: client.run(IMAGE, request))
    assert server.last.request.priority == 3
    assert 3 < server.last.request.timeout_seconds <= 4
    assert 3 < server.last.seconds_left < 4.1
    use(lambda client: client.run(IMAGE, request, priority=1, timeout=8))
    assert server.last.request.priority == 1
    assert 7 < server.last.request.timeout_seconds <= 8
    use(lambda client: client.run(IMAGE, request, timeout=None))
    assert server.last.request.timeout_seconds == 0
    assert request.SerializeToString() == before


@pytest.mark.parametrize(("field", "value"), [("priority", 4), ("priority", -1), ("timeout_seconds", -1.0)])
def test_an_invalid_priority_or_timeout_of_a_request_is_rejected_by_its_field(server, use, field, value):
    request = v1.TaskRequest(object_detection={}, **{field: value})
    with pytest.raises(InvalidArgumentError, match=f"^{field}: got {value}"):
        use(lambda client: client.run(IMAGE, request))
    assert not server.received


@pytest.mark.parametrize("priority", [-1, 4])
def test_a_priority_level_that_does_not_exist_is_rejected(server, use, priority):
    with pytest.raises(InvalidArgumentError, match=r"priority: got .*, expected 1"):
        use(lambda client: client.detect(IMAGE, priority=priority))
    assert not server.received


def test_the_timeout_applies_to_the_call_and_to_its_time_in_the_queue(server, use):
    use(lambda client: client.detect(IMAGE, timeout=5))
    # gRPC sends deadlines with few digits, rounded up.
    assert 4 < server.last.seconds_left < 5.1
    assert 4e6 < server.last.message.parameters["timeout"].int64_param <= 5e6
    assert server.last.request.timeout_seconds == pytest.approx(
        server.last.message.parameters["timeout"].int64_param / 1e6, abs=1e-5
    )


def test_a_request_without_a_timeout_has_the_clients(server, use):
    use(lambda client: client.detect(IMAGE), timeout=3)
    assert 2 < server.last.seconds_left < 3.1


@pytest.mark.parametrize("settings", [{"timeout": None}, {}])
def test_a_timeout_of_none_is_no_limit(server, use, settings):
    options = {} if settings else {"timeout": None}
    use(lambda client: client.detect(IMAGE, **options), **settings)
    assert "timeout" not in server.last.message.parameters
    assert server.last.request.timeout_seconds == 0
    assert server.last.seconds_left is None or server.last.seconds_left > 1e6


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_an_invalid_timeout_is_rejected(server, use, timeout):
    with pytest.raises(InvalidArgumentError, match="timeout: got "):
        use(lambda client: client.detect(IMAGE, timeout=timeout))
    with pytest.raises(InvalidArgumentError, match="timeout: got "):
        use(lambda client: client.detect(IMAGE), timeout=timeout)
    assert not server.received


def test_a_timeout_that_passes_before_the_image_is_encoded_sends_nothing(server, use):
    with pytest.raises(DeadlineExceededError, match="before the request was sent"):
        use(lambda client: client.detect(IMAGE, timeout=1e-9))
    assert not server.received
