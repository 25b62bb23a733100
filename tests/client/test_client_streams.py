"""Streams of both clients: events, errors and retries."""

import asyncio

import grpc
import pytest
from florence2 import (
    Answer,
    Finished,
    ItemFound,
    Retry,
    StepAnswer,
    StepFinished,
    StepStarted,
    TextDelta,
    v1,
)
from florence2.client import Client
from florence2.errors import (
    AccessDeniedError,
    DeadlineExceededError,
    InvalidArgumentError,
    MessageTooLargeError,
    ModelNotFoundError,
    ServerError,
    UnavailableError,
)
from florence2.results import Detection, TextRegion
from florence2.scores import TokenScores
from florence2.transports import Reply

from tests.client.fake_server import LENGTH, WAIT_SECONDS, FakeServer, serve, settled, task_response
from tests.client.streams import BOX, CAPTION, DELTAS, DETECTION, END, IMAGE, RESPONSE, STREAM, TEXTS, collect, failure

pytest_plugins = ["tests.client.fake_server", "tests.client.streams"]

QUICK = Retry(attempts=4, initial_backoff=0.01, max_backoff=0.02)


def test_events_are_typed_and_the_last_one_has_the_answer_of_run(server, use, events):
    server.stream(*STREAM)
    first, second, found, third, finished = events()
    assert [first, second, third] == [TextDelta(0, text) for text in TEXTS]
    assert isinstance(found, ItemFound)
    assert type(found.item) is Detection
    assert (found.step, found.item.label, found.item.likelihood, found.item.polygons) == (0, "dog", 0.5, [])
    assert found.item.box.tolist() == list(BOX.values())
    server.respond(RESPONSE.SerializeToString())
    unary = use(lambda client: client.run(IMAGE, DETECTION, request_id=finished.answer.request_id))
    assert finished == Finished(unary)
    assert unary.url == server.url
    assert unary.request_id


def test_a_text_region_is_an_item(server, events):
    corners = [{"x": x, "y": y} for x, y in ((0, 1), (2, 3), (4, 5), (6, 7))]
    region = v1.StreamEvent(text_region={"text": "CAFE", "quad": {"corners": corners}})
    server.stream(region, v1.StreamEvent(response=v1.TaskResponse.FromString(task_response("</s><s></s>"))))
    found, _ = events(v1.TaskRequest(ocr_with_region={}))
    assert type(found.item) is TextRegion
    assert (found.item.label, found.item.quad.tolist(), found.item.likelihood) == ("CAFE", list(range(8)), None)


def test_steps_start_and_end_with_an_answer_or_an_error(server, events):
    steps = [
        v1.StepResponse(request=CAPTION, response=v1.TaskResponse.FromString(task_response("</s><s>A dog.</s>"))),
        v1.StepResponse(request=DETECTION, item=3, error={"status": "INTERNAL", "message": "it broke"}),
    ]
    server.stream(
        v1.StreamEvent(step=0, step_started={"request": CAPTION}),
        v1.StreamEvent(step=1, step_started={"request": DETECTION, "item": 3}),
        v1.StreamEvent(step=1, step_response=steps[1]),
        v1.StreamEvent(step=0, text_delta="</s><s>A dog.</s>"),
        v1.StreamEvent(step=0, step_response=steps[0]),
        v1.StreamEvent(
            response={"image_size": RESPONSE.image_size, "finish_reason": "FINISH_REASON_STOP", "steps": steps}
        ),
    )
    tasks = v1.TaskRequest(task_list={"tasks": [CAPTION, DETECTION]})
    *started, failed, delta, ended, finished = events(tasks, {"request_id": "mine"})
    assert started == [StepStarted(0, CAPTION), StepStarted(1, DETECTION, item=3)]
    assert delta == TextDelta(0, "</s><s>A dog.</s>")
    assert (failed.step, failed.answer.item, str(failed.answer.outcome)) == (1, 3, "INTERNAL: it broke")
    assert (failed.answer.outcome.request_id, failed.answer.outcome.url) == ("mine", server.url)
    assert isinstance(ended, StepFinished)
    assert ended.answer == StepAnswer(CAPTION, ended.answer.outcome)
    assert str(ended.answer.outcome.result) == "A dog."
    assert isinstance(finished.answer, Answer)
    assert [type(step.outcome) for step in finished.answer.steps] == [Answer, ServerError]


def test_a_truncated_answer_is_streamed_to_its_end(server, events):
    cut = v1.TaskResponse.FromString(task_response("</s><s>dog<loc_1>", LENGTH))
    server.stream(v1.StreamEvent(text_delta=cut.text), v1.StreamEvent(response=cut))
    assert events()[-1].answer.is_truncated


def test_the_scores_of_the_answer_are_those_of_run(server, use, events):
    scored = task_response("</s><s>A dog.</s>", token_scores=TokenScores([-0.5, -0.3], [7, 17]))
    server.stream(v1.StreamEvent(response=v1.TaskResponse.FromString(scored)))
    server.respond(scored)
    unary = use(lambda client: client.run(IMAGE, CAPTION))
    assert events(CAPTION)[-1].answer.result == unary.result
    assert unary.result.likelihood is not None


def test_a_stream_sends_the_request_as_it_is_to_the_model_that_streams(server, events):
    server.stream(*STREAM)
    for request in (DETECTION, v1.TaskRequest(object_detection={}, raw=True)):
        before = request.SerializeToString()
        events(request, {"request_id": "mine"})
        assert request.SerializeToString() == before
        assert server.last.content == request
        assert server.last.element("IMAGE") == IMAGE
        assert [tensor[:2] for tensor in server.last.tensors.values()] == [("BYTES", [1])] * 2
        assert (server.last.message.model_name, server.last.message.id) == ("florence2_stream", "mine")


def test_the_model_that_streams_is_named_after_the_model(server, events):
    server.stream(END)
    events(model="florence2-large", model_version="3")
    assert (server.last.message.model_name, server.last.message.model_version) == ("florence2-large_stream", "")


def test_priority_timeout_and_headers_are_sent(server, events):
    server.stream(END)
    events(DETECTION, {"priority": 1, "timeout": 5}, headers={"Team": "blue"}, access_token="secret")  # noqa: S106
    sent = server.last
    assert (sent.request.priority, sent.message.parameters["priority"].uint64_param) == (1, 1)
    assert 4 < sent.request.timeout_seconds <= 5
    assert sent.message.parameters["timeout"].int64_param / 1e6 == pytest.approx(sent.request.timeout_seconds, abs=1e-5)
    assert 4 < sent.seconds_left < 5.1
    headers = {name: sent.metadata[name] for name in ("team", "authorization", "triton_grpc_error")}
    assert headers == {"team": "blue", "authorization": "Bearer secret", "triton_grpc_error": "true"}
    assert sent.metadata["triton_grpc_error"] == "true"


def test_events_may_be_larger_than_grpc_allows_by_default_but_not_than_the_channel_allows(server, events, error):
    text = "word " * 1_000_000
    server.stream(v1.StreamEvent(text_delta=text), END)
    assert events()[0] == TextDelta(0, text)
    assert type(error(channel_args=[("grpc.max_receive_message_length", 1000)])) is MessageTooLargeError


def test_without_a_timeout_there_is_no_limit(server, events):
    server.stream(END)
    events(DETECTION, timeout=None)
    assert server.last.request.timeout_seconds == 0
    assert "timeout" not in server.last.message.parameters
    assert server.last.seconds_left is None or server.last.seconds_left > 1e6


def test_nothing_is_sent_before_the_first_event_is_requested(server, use):
    async def make_only(client):
        await settled(client.stream(IMAGE, DETECTION).close())

    use(make_only)
    assert not server.received


@pytest.mark.parametrize(
    ("arguments", "keywords", "kind"),
    [
        ((IMAGE, "<OD>"), {}, TypeError),
        ((IMAGE, v1.TaskRequest()), {}, InvalidArgumentError),
        ((IMAGE, DETECTION), {"priority": 4}, InvalidArgumentError),
        ((IMAGE, DETECTION), {"num_beams": 2}, TypeError),
    ],
)
def test_an_invalid_request_is_rejected_by_the_call_itself(server, use, arguments, keywords, kind):
    with pytest.raises(kind):
        use(lambda client: client.stream(*arguments, **keywords))
    assert not server.received


def test_a_failure_is_an_error_with_field_request_id_and_url(server, stream):
    server.stream(DELTAS[0], failure("INVALID_ARGUMENT", "IMAGE: got junk, expected an image"))
    found, error = stream(DETECTION, {"request_id": "mine"})
    assert found == [TextDelta(0, TEXTS[0])]
    assert type(error) is InvalidArgumentError
    assert (error.field, error.value, error.requirement) == ("IMAGE", "junk", "an image")
    assert (error.request_id, error.url) == ("mine", server.url)


@pytest.mark.parametrize("delivery", ["event", "status", "text"])
@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        ("UNAVAILABLE", "This protocol is restricted, expecting header 'key'", AccessDeniedError),
        ("NOT_FOUND", "Request for unknown model: 'florence2_stream' is not found", ModelNotFoundError),
        ("NOT_FOUND", "Request for unknown model: 'florence2_stream' has no available versions", UnavailableError),
        ("UNAVAILABLE", "deadline exceeded: no answer after 5 s", DeadlineExceededError),
        ("INTERNAL", "Failed to increase the shared memory pool size for key 'x' to 9 bytes.", UnavailableError),
        ("INTERNAL", "Stub process 'florence2_stream_0_0' is not healthy.", ServerError),
    ],
)
def test_a_failure_has_the_same_type_however_it_is_reported(server, error, delivery, status, message, kind):
    if delivery == "status":
        server.fail(grpc.StatusCode[status], message)
    else:
        server.stream(failure(status, message) if delivery == "event" else message)
    found = error(retry=None)
    assert type(found) is kind
    assert message in str(found)
    assert found.url == server.url


@pytest.mark.parametrize("delivery", ["event", "status"])
def test_a_stream_is_retried_before_its_next_event(server, events, delivery):
    server.stream(*STREAM)
    if delivery == "status":
        server.fail_first(3)
    else:
        full = [failure("UNAVAILABLE", "queue_requests: full")]
        turns = iter([full, full, full])
        server.before_stream = lambda: server.stream(*next(turns, STREAM))
    assert len(events(retry=QUICK)) == len(STREAM)
    assert len(server.received) == 4


def test_a_stream_is_not_retried_after_its_first_event(server, stream):
    server.stream(DELTAS[0], failure("UNAVAILABLE", "the engine crashed"))
    found, error = stream(retry=QUICK)
    assert found == [TextDelta(0, TEXTS[0])]
    assert type(error) is UnavailableError
    assert len(server.received) == 1


def test_the_next_attempt_goes_to_the_next_server(server, client_type):
    other = FakeServer()
    running = serve(other)
    server.fail(grpc.StatusCode.UNAVAILABLE, "full")
    other.stream(*STREAM)

    async def stream():
        client = client_type([server.url, other.url], timeout=WAIT_SECONDS, retry=Retry(initial_backoff=60))
        try:
            return await collect(client.stream(IMAGE, DETECTION))
        finally:
            await settled(client.close())

    try:
        found, error = asyncio.run(stream())
    finally:
        running.stop(grace=None).wait(WAIT_SECONDS)
    assert error is None
    assert found[-1].answer.url == other.url
    assert (len(server.received), len(other.received)) == (1, 1)


@pytest.mark.parametrize(
    "sent",
    [
        DELTAS,
        [],
        [b"\xff\xff\xff"],
        [DELTAS[0], v1.StreamEvent(response={})],
        [v1.StreamEvent(text_region={"text": "a"})],
        [v1.StreamEvent(step_response={"request": CAPTION})],
    ],
    ids=["no end", "nothing", "no protobuf", "an empty response", "a region without corners", "a step without outcome"],
)
def test_a_malformed_stream_is_a_server_error(server, error, sent):
    server.stream(*sent)
    found = error()
    assert type(found) is ServerError
    assert found.url == server.url


def test_events_of_newer_servers_are_skipped(server, events):
    server.stream(v1.StreamEvent(step=3), END)
    (finished,) = events()
    assert isinstance(finished, Finished)


def test_streams_and_other_requests_share_a_connection(server, use):
    server.stream(END)

    async def both(client):
        await settled(client.run(IMAGE, DETECTION))
        return await collect(client.stream(IMAGE, DETECTION))

    use(both)
    assert len({received.peer for received in server.received}) == 1


def test_a_transport_that_does_not_stream_is_a_type_error(client_type):
    class Unary:
        def infer(self, *_):
            return Reply(RESPONSE)

        is_ready = health = close = infer_async = is_ready_async = health_async = close_async = infer

    client = client_type(transport=Unary())
    method = "stream" if client_type is Client else "stream_async"
    with pytest.raises(TypeError, match=rf"^transport: got .*, expected an object that also has the method {method}$"):
        client.stream(IMAGE, DETECTION)
