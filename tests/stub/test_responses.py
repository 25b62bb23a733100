"""The response to a step, which needs neither Triton nor an engine."""

from math import log

import numpy as np
import pytest
from florence2.plans import with_result
from florence2.v1 import FinishReason, ImageSize, TaskRequest, TaskResponse, Usage
from florence2_server.stub.responses import step_response
from florence2_server.v1.engine_pb2 import GenerateResponse

TEXT = "</s><s>dog<loc_10><loc_20><loc_30><loc_40></s>"
TOKENS = ["</s><s>", "dog", "<loc_10>", "<loc_20>", "<loc_30>", "<loc_40>", "</s>"]
COMPLETION = GenerateResponse(
    text=TEXT,
    image_size=ImageSize(width=1000, height=500),
    finish_reason=FinishReason.FINISH_REASON_STOP,
    usage=Usage(generated_tokens=len(TOKENS)),
    token_log_probabilities=[log(p) for p in (0.5, 0.25, 1, 1, 1, 0.5, 0.5)],
    token_masses=[0.5, 0.25, 1, 1, 1, 0.75, 0.5],
    token_ends=np.cumsum([len(token) for token in TOKENS]),
)


def test_a_response_has_every_field_of_the_completion():
    response = step_response(COMPLETION)
    assert response == TaskResponse(
        text=TEXT,
        image_size=COMPLETION.image_size,
        finish_reason=COMPLETION.finish_reason,
        usage=COMPLETION.usage,
        token_log_probabilities=COMPLETION.token_log_probabilities,
        token_masses=COMPLETION.token_masses,
        token_ends=COMPLETION.token_ends,
    )


def test_a_decoded_result_has_scores():
    (detection,) = with_result(TaskRequest(object_detection={}), step_response(COMPLETION)).detections.detections
    assert detection.label == "dog"
    assert detection.label_score == 0.25
    assert detection.location_score == pytest.approx(0.5 ** (1 / 4))
    assert detection.score == pytest.approx((0.25 * 0.5) ** (1 / 5))


def test_without_token_probabilities_a_result_has_no_scores():
    completion = GenerateResponse(text=TEXT, image_size=COMPLETION.image_size)
    (detection,) = with_result(TaskRequest(object_detection={}), step_response(completion)).detections.detections
    assert detection.label == "dog"
    assert not detection.HasField("score")
