"""How a caller is answered, and what is recorded of it. Triton and the engine are fakes here."""

import hashlib
import weakref
from types import SimpleNamespace

import grpc
import pytest
from florence2.plans import with_result
from florence2.v1 import ImageSize, TaskRequest, TaskResponse
from florence2_server.config import AdmissionConfig
from florence2_server.stub.image_files import ImageFiles
from florence2_server.stub.responses import step_response
from florence2_server.v1.engine_pb2 import GenerateResponse

from tests.stub.conftest import FakeEngine, FakeMetrics, FakeSender, FakeTritonRequest, dispatcher_of

COMPLETION = GenerateResponse(
    text="</s><s>dog<loc_10><loc_20><loc_30><loc_40></s>", image_size=ImageSize(width=9, height=5)
)


@pytest.fixture
def metrics():
    """What was reported."""
    return FakeMetrics()


@pytest.fixture
def outcomes(metrics):
    """The outcomes that the metrics observed."""
    return metrics.outcomes


@pytest.fixture
def dispatch(triton, metrics):
    """`dispatch(request, complete, *later)`: dispatch Triton requests, whose generations `complete` ends."""

    def dispatch(request: FakeTritonRequest, complete, *later: FakeTritonRequest) -> None:
        dispatcher = dispatcher_of(FakeEngine(complete), metrics)
        for each in (request, *later):
            dispatcher.dispatch([triton.Triton({}).request(each)])

    return dispatch


@pytest.fixture
def answered(dispatch):
    """`answered(request)`: the response to a request whose generation succeeds."""

    def answered(request: TaskRequest) -> TaskResponse:
        triton_request = FakeTritonRequest(request)
        dispatch(triton_request, lambda generation: generation.succeed(COMPLETION))
        ((tensor,),) = triton_request.sent
        return TaskResponse.FromString(tensor[0, 0])

    return answered


def test_the_response_is_composed_of_request_and_completion(answered):
    request = TaskRequest(object_detection={})
    assert answered(request) == with_result(request, step_response(COMPLETION))


def test_a_request_is_counted_by_its_task(answered, outcomes):
    answered(TaskRequest(object_detection={}))
    answered(TaskRequest(prompt="<OD>"))
    answered(TaskRequest(prompt="How many circles?"))
    assert [outcome.task for outcome in outcomes] == ["object_detection", "object_detection", "free_prompt"]
    assert {outcome.name for outcome in outcomes} == {"ok"}


def test_the_steps_of_a_plan_have_its_id_which_is_known_until_the_answer(triton, metrics):
    seen = []

    def complete(generation) -> None:
        seen.append((generation.request.plan, dispatcher.plans()))
        generation.succeed(COMPLETION)

    dispatcher = dispatcher_of(FakeEngine(complete), metrics)
    for task in ({"caption_grounding": {}, "adapter": "a"}, {"caption_grounding": {}}, {"caption": {}, "adapter": "a"}):
        dispatcher.dispatch([triton.Triton({}).request(FakeTritonRequest(TaskRequest(**task)))])
    (first, known), second, *without_adapter, (single, _) = seen
    assert first
    assert known == [first]
    assert second == (first, [first])
    assert [plan for plan, _ in without_adapter] == ["", ""]
    assert single == ""
    assert dispatcher.plans() == []


def test_the_adapter_of_a_request_reaches_the_engine_and_the_metrics(triton, metrics):
    engine = FakeEngine(lambda generation: generation.succeed(COMPLETION))
    dispatcher = dispatcher_of(engine, metrics)
    for adapter in ("invoices", ""):
        request = FakeTritonRequest(TaskRequest(object_detection={}, adapter=adapter))
        dispatcher.dispatch([triton.Triton({}).request(request)])
    assert [generation.request.adapter for generation in engine.submitted] == ["invoices", ""]
    assert [outcome.adapter for outcome in metrics.outcomes] == ["invoices", ""]


def test_adapters_of_waiting_generations_are_known(triton, metrics):
    dispatcher = dispatcher_of(engine := FakeEngine(), metrics)
    for adapter in ("running", "waiting", "", "waiting", "made-up"):
        request = FakeTritonRequest(TaskRequest(object_detection={}, adapter=adapter))
        dispatcher.dispatch([triton.Triton({}).request(request)])
    assert [generation.request.adapter for generation in engine.submitted] == ["running"]
    assert dispatcher.waiting_adapters() == {"waiting", "", "made-up"}


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(
    ("complete", "name"),
    [
        (lambda generation: generation.succeed(COMPLETION), "ok"),
        (lambda generation: generation.fail(grpc.StatusCode.INVALID_ARGUMENT, "no image"), "invalid_argument"),
        (lambda generation: generation.cancel(), "cancelled"),
    ],
    ids=["succeed", "fail", "cancel"],
)
def test_an_answered_request_is_freed_at_once(dispatch, outcomes, complete, name):
    # Its image lies in memory shared with Triton. In a reference cycle it would stay until the garbage collector runs,
    # which depends on the number of objects, not on their size: 400 photographs once held 800 MB.
    request = FakeTritonRequest(TaskRequest(caption={}))
    alive = weakref.ref(request)
    dispatch(request, complete)
    del request
    assert [outcome.name for outcome in outcomes] == [name]
    assert alive() is None


def test_if_the_engine_cannot_read_files_large_images_are_sent_in_messages(dispatch, outcomes):
    """As in a sandbox, or with a hardened /proc."""
    image = b"\xff" * 5_000_000
    sent = []

    def complete(generation) -> None:
        sent.append(generation.request)
        assert hashlib.sha256(image).hexdigest()[:16] in generation.describe()
        if generation.request.image_file:
            generation.fail(grpc.StatusCode.FAILED_PRECONDITION, "permission denied")
        else:
            generation.succeed(COMPLETION)

    first, second = (FakeTritonRequest(TaskRequest(caption={}), image) for _ in range(2))
    dispatch(first, complete, second)
    assert [(bool(message.image_file), message.image) for message in sent] == [
        (True, b""),
        (False, image),
        (False, image),
    ]
    assert sent[0].prompt == sent[1].prompt
    assert sent[0].image_file_bytes == len(image)
    assert [outcome.name for outcome in outcomes] == ["ok", "ok"]
    assert len(first.sent) == len(second.sent) == 1


def test_a_precondition_that_fails_without_a_file_is_an_error(dispatch, outcomes):
    dispatch(
        FakeTritonRequest(TaskRequest(caption={})),
        lambda generation: generation.fail(grpc.StatusCode.FAILED_PRECONDITION, "so it is"),
    )
    assert [outcome.name for outcome in outcomes] == ["failed_precondition"]


LIST = TaskRequest(task_list={"tasks": [{"caption": {}}, {"ocr": {}}, {"object_detection": {}}, {"prompt": "<OD>"}]})


def test_a_task_list_about_an_image_that_crashes_the_engine_fails_with_its_first_step(metrics, triton):
    # Each further step would crash several engines, and all requests would be rejected in the end.
    engine = FakeEngine()
    request = FakeTritonRequest(LIST)
    dispatcher_of(engine, metrics, AdmissionConfig(ahead=1)).dispatch([triton.Triton({}).request(request)])
    first, second = engine.submitted
    first.fail(grpc.StatusCode.INTERNAL, "this request crashes the engine", is_culprit=True)
    (error,) = request.sent
    assert (error.code, str(error)) == ("INTERNAL", "this request crashes the engine")
    assert second.completion.cancelled()
    assert len(engine.submitted) == 2


def test_steps_that_wait_hold_no_copy_of_the_image(metrics, triton, monkeypatch):
    monkeypatch.setattr(ImageFiles, "file", lambda *_, **__: None)
    engine = FakeEngine()
    dispatcher = dispatcher_of(engine, metrics)
    dispatcher.dispatch([triton.Triton({}).request(FakeTritonRequest(LIST))])
    ((pending, _),) = dispatcher.pending()
    images = [generation.request.image for generation in pending.generations]
    assert sorted(images) == [b"", b"", b"", b"an image"]
    assert engine.submitted[0].request.image == b"an image"


def test_if_the_engine_cannot_read_files_every_step_of_a_plan_is_sent_again(metrics, triton):
    engine = FakeEngine()
    dispatcher = dispatcher_of(engine, metrics, AdmissionConfig(ahead=3))
    request = FakeTritonRequest(LIST)
    dispatcher.dispatch([triton.Triton({}).request(request)])
    assert all(generation.request.image_file for generation in engine.submitted)
    for generation in list(engine.submitted):
        generation.fail(grpc.StatusCode.FAILED_PRECONDITION, "permission denied")
    again = engine.submitted[4:]
    assert [generation.request.image for generation in again] == [b"an image"] * 4
    for generation in again:
        generation.succeed(COMPLETION)
    ((tensor,),) = request.sent
    assert [step.WhichOneof("outcome") for step in TaskResponse.FromString(tensor[0, 0]).steps] == ["response"] * 4


def test_a_response_without_room_in_shared_memory_is_an_error_that_is_counted(dispatch, outcomes, triton, monkeypatch):
    monkeypatch.setattr(triton, "_LARGE_RESPONSE_BYTES", 1)
    monkeypatch.setattr(triton.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    request = FakeTritonRequest(TaskRequest(object_detection={}))
    dispatch(request, lambda generation: generation.succeed(COMPLETION))
    (error,) = request.sent
    assert error.code == "UNAVAILABLE"
    assert "/dev/shm: got a response of" in str(error)  # noqa: S108
    assert [outcome.name for outcome in outcomes] == ["unavailable"]


def test_a_response_that_cannot_be_sent_is_counted_as_internal(dispatch, outcomes, monkeypatch):
    def refuse(*_, **__) -> None:
        raise RuntimeError("Failed to increase the shared memory pool size")

    monkeypatch.setattr(FakeSender, "send", refuse)
    dispatch(FakeTritonRequest(TaskRequest(caption={})), lambda generation: generation.succeed(COMPLETION))
    assert [outcome.name for outcome in outcomes] == ["internal"]
