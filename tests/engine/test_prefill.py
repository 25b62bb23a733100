"""A generation whose prefill fails, batched with others that it must not affect."""

import pytest
from florence2.v1 import TaskRequest
from florence2_server.config import EngineConfig
from florence2_server.engine.build import build
from florence2_server.engine.generation import Generation
from florence2_server.engine.searches import start_search
from florence2_server.stub.prompts import prompt_parts
from florence2_server.v1.engine_pb2 import GenerateRequest

from tests.conftest import DEMO_CHECKPOINT, EXAMPLE_SCENE
from tests.engine.test_parity import assert_parity
from tests.engine.test_search import make_options

SCENE = EXAMPLE_SCENE.read_bytes()
NO_SUCH_TOKEN = [0, 60_000, 2]
LONGER_THAN_THE_CACHE = [0] + [5] * 1024 + [2]


@pytest.mark.parametrize("bad_prompt", [NO_SUCH_TOKEN, LONGER_THAN_THE_CACHE], ids=["token", "length"])
def test_a_prompt_that_fails_in_a_prefill_fails_alone(reference, image_file, bad_prompt):
    engine, preparation, _ = build(EngineConfig(checkpoint=str(DEMO_CHECKPOINT), device="cpu", slots=4, image_batch=3))
    tasks = [({"caption": {}}, 1), ({"object_detection": {}}, 3), ({"ocr": {}}, 1)]
    cases = [
        reference.case(image, task, {"num_beams": beams, "max_new_tokens": 20})
        for image, (task, beams) in zip([SCENE, SCENE, image_file()], tasks, strict=True)
    ]
    generations = [preparation.prepare(message(case.image, case.request)) for case in cases]
    bad = Generation(generations[0].image, bad_prompt, start_search(make_options(), bad_prompt))
    for generation in [generations[0], bad, *generations[1:]]:
        engine.submit(generation)
    engine.start()  # all four have been submitted, so that they share a prefill
    try:
        with pytest.raises((IndexError, RuntimeError)):
            bad.future.result(60)
        completions = [generation.future.result(60) for generation in generations]
    finally:
        engine.close()
    assert_parity(cases, completions)
    assert [generation.image_embedding_cached for generation in generations] == [False, True, False]
    assert (engine.embedding_statistics.misses, engine.embedding_statistics.hits) == (2, 1)


def message(image: bytes, request: TaskRequest) -> GenerateRequest:
    return GenerateRequest(image=image, prompt=prompt_parts(request), generation=request.generation)
