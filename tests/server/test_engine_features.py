"""What the engine can do, seen through Triton: beams, scores, kept image embeddings."""

import itertools
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from florence2 import Client, Detections

from tests.engine.test_parity import OPTIONS
from tests.reference import TASKS, assert_equal_but_for_ties, png
from tests.server.conftest import ask
from tests.server.looks import metric, questions_counted, seconds_until
from training.sampling import sample_scene
from training.scenes import draw


def test_requests_with_different_searches_share_the_batch(plain_client, reference):
    scenes = [png(draw(sample_scene(seed))) for seed in (31, 32)]
    combinations = random.Random(5).sample(list(itertools.product(scenes, TASKS, OPTIONS)), 32)
    questions = [reference.question(*combination) for combination in combinations]
    with ThreadPoolExecutor(len(questions)) as callers:
        responses = list(callers.map(lambda each: ask(plain_client, each.image, each.request), questions))
    texts = [response.text for response in responses]
    assert_equal_but_for_ties(questions, texts, [reference.text(question) for question in questions])
    for response in responses:
        assert len(response.token_log_probabilities) == len(response.token_ends) == response.usage.generated_tokens


def test_objects_have_scores(server):
    with Client(server.grpc_url) as client:
        found = client.detect(png(draw(sample_scene(33))))
    assert isinstance(found, Detections)
    assert len(found)
    for scores in (found.scores, found.label_scores, found.location_scores):
        assert scores.shape == (len(found),)
        assert ((scores > 0) & (scores <= 1)).all()


@pytest.mark.parametrize("cached", [False, True])
def test_answers_are_the_same_with_and_without_the_cache(server, plain_client, reference, cached):
    scene = png(draw(sample_scene(34 + cached)))
    questions = [reference.question(scene, task, {"max_new_tokens": 40}) for task in TASKS[:4]]
    if cached:
        ask(plain_client, scene, questions[0].request)
    responses = [ask(plain_client, scene, question.request) for question in questions]
    assert [response.usage.image_embedding_cached for response in responses] == [cached, True, True, True]
    for question, response in zip(questions, responses, strict=True):
        assert response.text == reference.text(question)
    seconds_until(lambda: metric(server, "florence2_image_embedding_cache_bytes") > 0, limit=10)


def test_a_cache_of_no_bytes_keeps_nothing(start_server):
    server = start_server(FLORENCE2_EMBEDDING_CACHE_BYTES="0")
    scene = png(draw(sample_scene(36)))
    with Client(server.grpc_url) as client:
        assert client.detect(scene) == client.detect(scene)
    seconds_until(lambda: questions_counted(server) == 2, limit=10)
    assert metric(server, "florence2_image_embedding_misses_total") == 2
    assert metric(server, "florence2_image_embedding_hits_total") == 0
    assert metric(server, "florence2_image_embedding_cache_bytes") == 0
