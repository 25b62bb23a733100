"""Requests that fail in the prefill, together with others whose answers must not change."""

import pytest
from florence2.engine.v1.engine_pb2 import GenerateRequest
from florence2.v1 import TaskRequest
from florence2_adapter.prompts import prompt_parts
from florence2_engine.__main__ import build
from florence2_engine.config import EngineConfig
from florence2_engine.request import Request
from florence2_engine.search import start_search

from tests.conftest import DEMO_CHECKPOINT, EXAMPLE_SCENE
from tests.engine.test_parity import assert_parity
from tests.engine.test_search import make_options

SCENE = EXAMPLE_SCENE.read_bytes()
NO_SUCH_TOKEN = [0, 60_000, 2]
LONGER_THAN_THE_CACHE = [0] + [5] * 1024 + [2]


@pytest.mark.parametrize("guilty", [NO_SUCH_TOKEN, LONGER_THAN_THE_CACHE], ids=["token", "length"])
def test_only_the_request_that_makes_a_prefill_fail_fails(reference, image_file, guilty):
    engine, service = build(EngineConfig(checkpoint=str(DEMO_CHECKPOINT), device="cpu", slots=4, image_batch=3))
    tasks = [({"caption": {}}, 1), ({"object_detection": {}}, 3), ({"ocr": {}}, 1)]
    questions = [
        reference.question(image, task, {"num_beams": beams, "max_new_tokens": 20})
        for image, (task, beams) in zip([SCENE, SCENE, image_file()], tasks, strict=True)
    ]
    requests = [service.prepare(message(question.image, question.request)) for question in questions]
    bad = Request(requests[0].image, guilty, start_search(make_options(), guilty))
    for request in [requests[0], bad, *requests[1:]]:
        engine.submit(request)
    engine.start()  # all four have been submitted: they share a prefill
    try:
        with pytest.raises((IndexError, RuntimeError)):
            bad.future.result(60)
        answers = [request.future.result(60) for request in requests]
    finally:
        engine.close()
    assert_parity(questions, answers)
    assert [answer.image_embedding_cached for answer in answers] == [False, True, False]
    assert (engine.embeddings.misses, engine.embeddings.hits) == (2, 1)


def message(image: bytes, request: TaskRequest) -> GenerateRequest:
    return GenerateRequest(image=image, prompt=prompt_parts(request), generation=request.generation)
