"""What a caller is told of the engine's answer. Triton and the engine are fakes here."""

import hashlib
import importlib
import sys
import threading
import weakref
from math import log
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from florence2.engine.v1.engine_pb2 import GenerateResponse
from florence2.v1 import FinishReason, ImageSize, TaskRequest, TaskResponse, Usage
from florence2_adapter.config import RequestLimits


class FakeTritonError(Exception):
    """As the stub has it, with the codes that are asked for here."""

    INVALID_ARG, CANCELLED, INTERNAL = "INVALID_ARG", "CANCELLED", "INTERNAL"


TEXT = "</s><s>dog<loc_10><loc_20><loc_30><loc_40></s>"
TOKENS = ["</s><s>", "dog", "<loc_10>", "<loc_20>", "<loc_30>", "<loc_40>", "</s>"]
ENGINE_ANSWER = GenerateResponse(
    text=TEXT,
    image_size=ImageSize(width=1000, height=500),
    finish_reason=FinishReason.FINISH_REASON_STOP,
    usage=Usage(generated_tokens=len(TOKENS)),
    token_log_probabilities=[log(p) for p in (0.5, 0.25, 1, 1, 1, 0.5, 0.5)],
    token_ends=np.cumsum([len(token) for token in TOKENS]),
)


@pytest.fixture
def outcomes():
    """What the metrics were told."""
    return []


class Triton:
    """What the stub gives the model: a request with one row, and the sender of its response.

    Attributes:
        sent: the responses.
    """

    def __init__(self, request: TaskRequest, image: bytes = b"an image") -> None:
        self.inputs = {"IMAGE": image, "REQUEST": request.SerializeToString()}
        self.sent = []

    def request_id(self) -> str:
        return "a request"

    def parameters(self) -> str:
        return "{}"

    def get_response_sender(self) -> "SimpleNamespace":
        return SimpleNamespace(send=lambda response, **_: self.sent.append(response))


@pytest.fixture
def dispatch(monkeypatch, outcomes):
    """`dispatch(request, answer, *later)`: hand over Triton requests whose jobs `answer` ends."""
    fake = SimpleNamespace(
        TRITONSERVER_RESPONSE_COMPLETE_FINAL=1,
        InferenceResponse=lambda output_tensors, error=None: error or output_tensors,
        Tensor=lambda _, array: array,
        TritonError=FakeTritonError,
        get_input_tensor_by_name=lambda request, name: SimpleNamespace(
            as_numpy=lambda: np.array([[request.inputs[name]]], np.object_)
        ),
    )
    modules = [
        "florence2_adapter.metrics",
        "florence2_adapter.pending",
        "florence2_adapter.request_log",
        "florence2_adapter.statuses",
        "florence2_adapter.dispatcher",
    ]
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", fake)
    for name in modules:
        monkeypatch.delitem(sys.modules, name, raising=False)
    dispatcher_type = importlib.import_module("florence2_adapter.dispatcher").Dispatcher

    def dispatch(request: Triton, answer, *later: Triton) -> None:
        metrics = SimpleNamespace(observe=outcomes.append, set_slots_in_use=lambda _: None)
        log = SimpleNamespace(write=lambda *_: None)
        dispatcher = dispatcher_type(SimpleNamespace(submit=answer), 1, RequestLimits(), metrics, log, threading.Lock())
        dispatcher.dispatch([request, *later])
        dispatcher.close()

    yield dispatch
    for name in modules:
        sys.modules.pop(name, None)


@pytest.fixture
def answered(dispatch):
    """`answered(request, engine_answer)`: the response to a request that the engine answers so."""

    def answered(request: TaskRequest, engine_answer: GenerateResponse = ENGINE_ANSWER) -> TaskResponse:
        triton_request = Triton(request)
        dispatch(triton_request, lambda job: job.succeed(engine_answer))
        ((tensor,),) = triton_request.sent
        return TaskResponse.FromString(tensor[0, 0])

    return answered


def test_a_response_says_all_that_the_engine_says(answered):
    response = answered(TaskRequest(object_detection={}, raw=True))
    assert response == TaskResponse(
        text=TEXT,
        image_size=ENGINE_ANSWER.image_size,
        finish_reason=ENGINE_ANSWER.finish_reason,
        usage=ENGINE_ANSWER.usage,
        token_log_probabilities=ENGINE_ANSWER.token_log_probabilities,
        token_ends=ENGINE_ANSWER.token_ends,
    )


def test_an_answer_is_counted_by_its_task(answered, outcomes):
    answered(TaskRequest(object_detection={}))
    answered(TaskRequest(prompt="<OD>"))
    answered(TaskRequest(prompt="How many circles?"))
    assert [outcome.task for outcome in outcomes] == ["object_detection", "object_detection", "free_prompt"]
    assert {outcome.name for outcome in outcomes} == {"ok"}


def test_a_decoded_result_has_scores(answered):
    (detection,) = answered(TaskRequest(object_detection={})).detections.detections
    assert detection.label == "dog"
    assert detection.label_score == 0.25
    assert detection.location_score == pytest.approx(0.5 ** (1 / 4))
    assert detection.score == pytest.approx((0.25 * 0.5) ** (1 / 5))


def test_a_result_of_tokens_about_which_nothing_is_said_has_no_scores(answered):
    engine_answer = GenerateResponse(text=TEXT, image_size=ENGINE_ANSWER.image_size)
    (detection,) = answered(TaskRequest(object_detection={}), engine_answer).detections.detections
    assert detection.label == "dog"
    assert not detection.HasField("score")


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(
    ("answer", "name"),
    [
        (lambda job: job.succeed(ENGINE_ANSWER), "ok"),
        (lambda job: job.fail(grpc.StatusCode.INVALID_ARGUMENT, "no image"), "invalid_argument"),
        (lambda job: job.cancel(), "cancelled"),
    ],
    ids=["succeed", "fail", "cancel"],
)
def test_an_answered_request_is_let_go_of_at_once(dispatch, outcomes, answer, name):
    # Its image lies in memory shared with Triton. In a cycle it waits for the collector, which looks at the number of
    # objects: 400 photographs held 800 MB once.
    request = Triton(TaskRequest(caption={}))
    alive = weakref.ref(request)
    dispatch(request, answer)
    del request
    assert [outcome.name for outcome in outcomes] == [name]
    assert alive() is None


def test_if_the_engine_cannot_read_files_large_images_are_sent_in_messages(dispatch, outcomes):
    """As in a sandbox, or with a hardened /proc."""
    image = b"\xff" * 5_000_000
    calls = []

    def answer(job) -> None:
        calls.append(job.request)
        assert hashlib.sha256(image).hexdigest()[:16] in job.describe()
        if job.request.image_file:
            job.fail(grpc.StatusCode.FAILED_PRECONDITION, "permission denied")
        else:
            job.succeed(ENGINE_ANSWER)

    first, second = (Triton(TaskRequest(caption={}), image) for _ in range(2))
    dispatch(first, answer, second)
    assert [(bool(call.image_file), call.image) for call in calls] == [(True, b""), (False, image), (False, image)]
    assert calls[0].prompt == calls[1].prompt
    assert calls[0].image_file_bytes == len(image)
    assert [outcome.name for outcome in outcomes] == ["ok", "ok"]
    assert len(first.sent) == len(second.sent) == 1


def test_a_precondition_that_fails_without_a_file_is_an_error(dispatch, outcomes):
    dispatch(Triton(TaskRequest(caption={})), lambda job: job.fail(grpc.StatusCode.FAILED_PRECONDITION, "so it is"))
    assert [outcome.name for outcome in outcomes] == ["failed_precondition"]
