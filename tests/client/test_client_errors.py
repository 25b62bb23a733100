"""Failures of requests, as errors of the package."""

import asyncio
import pickle
import threading
import time
from math import nan

import grpc
import pytest
from florence2 import v1
from florence2.client import AsyncClient, Client, Retry, TruncatedAnswerError
from florence2.errors import (
    AccessDeniedError,
    DeadlineExceededError,
    InvalidArgumentError,
    MessageTooLargeError,
    ModelNotFoundError,
    RequestCancelledError,
    ServerError,
    UnavailableError,
)
from florence2.scores import TokenScores
from tritonclient.grpc import service_pb2

from tests.client.fake_server import (
    IMAGE_SIZE,
    LENGTH,
    WAIT_SECONDS,
    FakeServer,
    infer_response,
    serve,
    settled,
    task_response,
)

pytest_plugins = ["tests.client.fake_server"]

IMAGE = b"an encoded image"


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidArgumentError, "^it is so$"),
        (grpc.StatusCode.UNAVAILABLE, UnavailableError, "^it is so$"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceededError, r"^no answer within \d+ s: it is so$"),
        (grpc.StatusCode.CANCELLED, UnavailableError, "^the server cancelled the call: it is so$"),
        (grpc.StatusCode.INTERNAL, ServerError, "^INTERNAL: it is so$"),
        (grpc.StatusCode.NOT_FOUND, ModelNotFoundError, "^it is so$"),
        (grpc.StatusCode.UNKNOWN, ServerError, "^UNKNOWN: it is so$"),
        (grpc.StatusCode.UNIMPLEMENTED, ServerError, "^UNIMPLEMENTED: it is so$"),
        (grpc.StatusCode.UNAUTHENTICATED, AccessDeniedError, "^it is so$"),
        (grpc.StatusCode.PERMISSION_DENIED, AccessDeniedError, "^it is so$"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ServerError, "^RESOURCE_EXHAUSTED: it is so$"),
    ],
    ids=str,
)
def test_each_status_is_an_error_with_the_servers_message(server, use, status, error, message):
    server.fail(status, "it is so")
    with pytest.raises(error, match=message) as caught:
        use(lambda client: client.detect(IMAGE), retry=None)
    assert type(caught.value) is error


def test_an_error_has_the_request_id_and_the_url(server, use):
    server.fail(grpc.StatusCode.INTERNAL, "it is so")
    with pytest.raises(ServerError) as caught:
        use(lambda client: client.detect(IMAGE, request_id="mine"))
    assert (caught.value.request_id, caught.value.url) == ("mine", server.url)
    server.answer("</s><s>a dog</s>", finish_reason=99)
    with pytest.raises(ServerError, match="finish_reason") as caught:
        use(lambda client: client.run(IMAGE, v1.TaskRequest(caption=v1.Caption()), request_id="other"))
    copied = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
    assert (copied.request_id, copied.url) == ("other", server.url)


def test_a_rejection_by_the_server_has_field_value_and_requirement(server, use):
    server.fail(
        grpc.StatusCode.INVALID_ARGUMENT,
        "region_to_ocr.region.x_max: got 700.0, expected at most 640, the image's width, or one pixel more",
    )
    with pytest.raises(InvalidArgumentError) as caught:
        use(lambda client: client.read_region(IMAGE, (1, 2, 700, 9)))
    error = caught.value
    assert (error.field, error.value) == ("region_to_ocr.region.x_max", "700.0")
    assert error.requirement == "at most 640, the image's width, or one pixel more"
    assert error.url == server.url


def test_a_rejection_by_the_client_has_the_value_itself_and_no_url(use):
    with pytest.raises(InvalidArgumentError) as caught:
        use(lambda client: client.detect(IMAGE, num_beams=9))
    error = caught.value
    assert (error.field, error.value, error.requirement) == ("generation.num_beams", 9, "1 to 8")
    assert (error.request_id, error.url) == (None, None)


def test_a_message_in_another_format_is_passed_on_unchanged(server, use):
    server.fail(grpc.StatusCode.INVALID_ARGUMENT, "unexpected shape for input 'IMAGE'")
    with pytest.raises(InvalidArgumentError, match="unexpected shape for input") as caught:
        use(lambda client: client.detect(IMAGE))
    assert (caught.value.field, caught.value.value, caught.value.requirement) == (None, None, None)


def test_a_request_to_a_restricted_protocol_is_not_retried(server, use):
    message = "This protocol is restricted, expecting header 'triton-grpc-protocol-key'"
    server.fail(grpc.StatusCode.UNAVAILABLE, message)
    with pytest.raises(AccessDeniedError, match=message):
        use(lambda client: client.detect(IMAGE))
    assert len(server.received) == 1


def test_a_request_to_a_server_that_is_shutting_down_is_retried(server, use):
    server.fail(grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'florence2' has no available versions")
    with pytest.raises(UnavailableError, match="no available versions"):
        use(lambda client: client.detect(IMAGE), retry=Retry(attempts=3, initial_backoff=0.01))
    assert len(server.received) == 3


def test_a_request_that_failed_with_another_callers_malformed_one_is_retried(server, use):
    message = "incomplete string data for inference input 'IMAGE', expecting string of length 9 but only 5 available"
    server.fail(grpc.StatusCode.INVALID_ARGUMENT, message)
    with pytest.raises(UnavailableError, match="incomplete string data"):
        use(lambda client: client.detect(IMAGE), retry=Retry(attempts=3, initial_backoff=0.01))
    assert len(server.received) == 3


def test_a_request_to_a_server_whose_shared_memory_is_full_is_retried(server, use):
    message = (
        "Failed to increase the shared memory pool size for key 'triton_python_backend_shm_region_1' to 67108864 bytes."
        " If you are running Triton inside docker, use '--shm-size' flag to control the shared memory region size."
        " Error: No space left on device"
    )
    server.fail(grpc.StatusCode.INTERNAL, message)
    with pytest.raises(UnavailableError, match="Failed to increase the shared memory pool size"):
        use(lambda client: client.detect(IMAGE), retry=Retry(attempts=3, initial_backoff=0.01))
    assert len(server.received) == 3


def test_a_deadline_that_the_server_noticed_is_a_deadline_and_not_a_cancellation(server, use):
    server.fail(grpc.StatusCode.UNAVAILABLE, "deadline exceeded: the request's 5 s have passed")
    with pytest.raises(DeadlineExceededError, match=r"^no answer within 10 s: deadline exceeded: the request's 5 s"):
        use(lambda client: client.detect(IMAGE))
    assert len(server.received) == 1


def test_too_many_steps_are_an_invalid_request(server, use):
    server.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "steps: got more than 128, expected at most 128 (max_steps)")
    with pytest.raises(InvalidArgumentError, match="max_steps") as caught:
        use(lambda client: client.detect(IMAGE))
    assert (caught.value.field, caught.value.requirement) == ("steps", "at most 128 (max_steps)")


def test_a_message_that_is_too_large_for_the_client_has_its_own_error(server, use):
    with pytest.raises(MessageTooLargeError, match=r"larger than max \(\d+ vs\. 1000\)"):
        use(lambda client: client.detect(bytes(2000)), channel_args=[("grpc.max_send_message_length", 1000)])
    assert not server.received


def test_a_message_that_is_too_large_for_the_server_has_its_own_error():
    fake = FakeServer()
    running = serve(fake, max_receive_message_length=1000)
    try:
        with (
            Client(fake.url) as client,
            pytest.raises(MessageTooLargeError, match=r"larger than max \(\d+ vs\. 1000\)"),
        ):
            client.detect(bytes(2000))
    finally:
        running.stop(grace=None).wait(WAIT_SECONDS)
    assert not fake.received


def test_a_server_that_cannot_be_reached_is_unavailable(client_type):
    async def call_nobody() -> None:
        client = client_type("127.0.0.1:1", timeout=0.5)
        try:
            await settled(client.detect(IMAGE))
        finally:
            await settled(client.close())

    with pytest.raises(UnavailableError, match=r"in \d+ attempts within 0\.[45] s: .*127\.0\.0\.1:1"):
        asyncio.run(call_nobody())


def test_a_timeout_ends_the_request_at_the_client_and_on_the_server(server, use):
    server.hold()
    started = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        use(lambda client: client.detect(IMAGE, timeout=0.3))
    assert time.monotonic() - started < 3
    assert server.cancelled.wait(WAIT_SECONDS)


def with_token_scores(log_probabilities: list[float], ends: list[int]) -> bytes:
    """A response with the text "a" and any token scores: concatenating protobuf messages merges them."""
    tokens = v1.TaskResponse(token_log_probabilities=log_probabilities, token_ends=ends)
    return task_response("a") + tokens.SerializeToString()


UNREADABLE = {
    "no protobuf": b"\xff\xff\xff",
    "empty, so without an image size": b"",
    "an impossible image size": task_response("</s><s>A dog.</s>", size=(0, 5)),
    "no finish reason": task_response("a", v1.FinishReason.FINISH_REASON_UNSPECIFIED),
    "a finish reason from the future": task_response("a", 77),
    "tokens without a probability": with_token_scores([], [1]),
    "tokens without an end": with_token_scores([-0.5, -0.5], [1]),
    "tokens that end beyond the text": with_token_scores([-0.5], [2]),
    "tokens that go back": with_token_scores([-0.5] * 3, [1, 0, 1]),
    "a probability that is no number": with_token_scores([nan], [1]),
    "another tensor": infer_response(task_response("a"), name="ANSWER"),
    "no tensor": service_pb2.ModelInferResponse(),
    "no content": service_pb2.ModelInferResponse(outputs=infer_response(b"").outputs),
    "a length beyond the content": service_pb2.ModelInferResponse(
        outputs=infer_response(b"").outputs, raw_output_contents=[b"\xff\xff\xff\x7fabc"]
    ),
    "another datatype": service_pb2.ModelInferResponse(
        outputs=[service_pb2.ModelInferResponse.InferOutputTensor(name="RESPONSE", datatype="FP32", shape=[1, 1])],
        raw_output_contents=[b"\0\0\0\0"],
    ),
    "two elements": service_pb2.ModelInferResponse(
        outputs=[service_pb2.ModelInferResponse.InferOutputTensor(name="RESPONSE", datatype="BYTES", shape=[2])],
        raw_output_contents=[b"\1\0\0\0a\1\0\0\0b"],
    ),
}


@pytest.mark.parametrize("response", UNREADABLE.values(), ids=UNREADABLE)
def test_a_malformed_response_is_a_server_error(server, use, response):
    server.respond(response)
    with pytest.raises(ServerError, match=r"response|RESPONSE"):
        use(lambda client: client.detect(IMAGE))


def test_cancelling_a_task_cancels_the_request_and_raises_cancelled_error(server):
    server.hold()

    async def cancel() -> None:
        async with AsyncClient(server.url) as client:
            task = asyncio.create_task(client.detect(IMAGE))
            assert await asyncio.to_thread(server.arrived.wait, WAIT_SECONDS)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancel())
    assert server.cancelled.wait(WAIT_SECONDS)


def test_asyncio_timeouts_cancel_the_request(server):
    server.hold()

    async def wait() -> None:
        async with AsyncClient(server.url) as client, asyncio.timeout(0.2):
            await client.detect(IMAGE)

    with pytest.raises(TimeoutError):
        asyncio.run(wait())
    assert server.cancelled.wait(WAIT_SECONDS)


def test_closing_the_async_client_ends_its_requests_with_an_error_and_does_not_cancel_the_task(server):
    server.hold()

    async def close() -> None:
        client = AsyncClient(server.url)
        task = asyncio.create_task(client.detect(IMAGE))
        assert await asyncio.to_thread(server.arrived.wait, WAIT_SECONDS)
        await client.close()
        with pytest.raises(RequestCancelledError):
            await task

    asyncio.run(close())


def test_closing_the_client_ends_the_requests_of_other_threads(server):
    server.hold()
    client = Client(server.url)
    raised: list[BaseException] = []

    def detect() -> None:
        try:
            client.detect(IMAGE)
        except RequestCancelledError as error:
            raised.append(error)

    thread = threading.Thread(target=detect)
    thread.start()
    assert server.arrived.wait(WAIT_SECONDS)
    client.close()
    thread.join(WAIT_SECONDS)
    assert [type(error) for error in raised] == [RequestCancelledError]


def test_a_closed_client_raises_a_runtime_error(server, use):
    async def use_after_close(client) -> None:
        await settled(client.close())
        await settled(client.close())
        for use in (lambda: client.detect(IMAGE), client.is_ready):
            with pytest.raises(RuntimeError, match="the client is closed"):
                await settled(use())

    use(use_after_close)
    assert not server.received


def test_a_client_that_is_closed_while_the_image_is_encoded_sends_nothing(server, tmp_path):
    (tmp_path / "image").write_bytes(IMAGE)

    async def close_meanwhile() -> None:
        client = AsyncClient(server.url)
        task = asyncio.create_task(client.detect(tmp_path / "image"))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(RuntimeError, match="the client is closed"):
            await task

    asyncio.run(close_meanwhile())
    assert not server.received


def test_a_truncated_answer_error_can_be_pickled(server, use):
    text = "</s><s>dog<loc_1><loc_2><loc_3><loc_4>cat<loc_"
    server.respond(task_response(text, LENGTH, token_scores=TokenScores([-0.5], [len(text)])))
    with pytest.raises(TruncatedAnswerError) as caught:
        use(lambda client: client.detect(IMAGE))
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert str(copy) == str(caught.value)
    assert copy.answer == caught.value.answer
    assert copy.answer.image_size == IMAGE_SIZE
    assert copy.request_id == copy.answer.request_id != ""
    assert copy.url == copy.answer.url
