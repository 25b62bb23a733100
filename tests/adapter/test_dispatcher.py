"""What a caller is told of the engine's answer. Triton and the engine are fakes here."""

import importlib
import sys
from math import log
from types import SimpleNamespace

import numpy as np
import pytest
from florence2.engine.v1.engine_pb2 import GenerateResponse
from florence2.v1 import FinishReason, ImageSize, TaskRequest, TaskResponse, Usage
from florence2_adapter.config import RequestLimits

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


@pytest.fixture
def answered(monkeypatch, outcomes):
    """`answered(request, engine_answer)`: the response to a request that the engine answers so."""
    fake = SimpleNamespace(
        TRITONSERVER_RESPONSE_COMPLETE_FINAL=1,
        InferenceResponse=lambda output_tensors: output_tensors,
        Tensor=lambda _, array: array,
        get_input_tensor_by_name=lambda request, name: SimpleNamespace(as_numpy=lambda: request.inputs[name]),
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

    def answered(request: TaskRequest, engine_answer: GenerateResponse = ENGINE_ANSWER) -> TaskResponse:
        engine = SimpleNamespace(submit=lambda job: job.succeed(engine_answer))
        sent = []
        elements = {"IMAGE": b"an image", "REQUEST": request.SerializeToString()}
        inputs = {name: np.array([[element]], np.object_) for name, element in elements.items()}
        sender = SimpleNamespace(send=lambda response, **_: sent.append(response))
        metrics = SimpleNamespace(observe=outcomes.append, set_slots_in_use=lambda _: None)
        log = SimpleNamespace(write=lambda *_: None)
        dispatcher = dispatcher_type(engine, 1, RequestLimits(), metrics, log)
        triton_request = SimpleNamespace(
            inputs=inputs,
            get_response_sender=lambda: sender,
            request_id=lambda: "a request",
            parameters=lambda: "{}",
        )
        dispatcher.dispatch([triton_request])
        dispatcher.close()
        ((tensor,),) = sent
        return TaskResponse.FromString(tensor[0, 0])

    yield answered
    for name in modules:
        sys.modules.pop(name, None)


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
