"""Features of the engine, through Triton: beams, scores, the cache of image embeddings."""

import itertools
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from florence2 import Client, Detections

from tests.engine.test_parity import OPTIONS
from tests.reference import TASKS, assert_equal_except_near_ties, png
from tests.server.conftest import infer
from tests.server.observation import metric, requests_counted, seconds_until
from training.demo.sampling import sample_scene
from training.demo.scenes import draw


def test_requests_with_different_generation_options_share_the_batch(plain_client, reference):
    scenes = [png(draw(sample_scene(seed))) for seed in (31, 32)]
    combinations = random.Random(5).sample(list(itertools.product(scenes, TASKS, OPTIONS)), 32)
    cases = [reference.case(*combination) for combination in combinations]
    with ThreadPoolExecutor(len(cases)) as callers:
        responses = list(callers.map(lambda each: infer(plain_client, each.image, each.request), cases))
    texts = [response.text for response in responses]
    assert_equal_except_near_ties(cases, texts, [reference.text(case) for case in cases])
    for response in responses:
        assert len(response.token_log_probabilities) == len(response.token_ends) == response.usage.generated_tokens
        assert len(response.token_masses) == response.usage.generated_tokens
        probabilities = np.exp(response.token_log_probabilities)
        assert (np.array(response.token_masses) >= probabilities - 1e-6).all()
        assert max(response.token_masses) <= 1


def test_objects_have_scores(server):
    with Client(server.grpc_url) as client:
        found = client.detect(png(draw(sample_scene(33))))
    assert isinstance(found, Detections)
    assert len(found)
    likelihoods = (found.likelihoods, found.label_likelihoods, found.location_likelihoods)
    for scores in (found.scores, found.label_scores, found.location_scores, *likelihoods):
        assert scores.shape == (len(found),)
        assert ((scores > 0) & (scores <= 1)).all()


@pytest.mark.parametrize("cached", [False, True])
def test_answers_are_the_same_with_a_cached_embedding_and_without(server, plain_client, reference, cached):
    scene = png(draw(sample_scene(34 + cached)))
    cases = [reference.case(scene, task, {"max_new_tokens": 40}) for task in TASKS[:4]]
    if cached:
        infer(plain_client, scene, cases[0].request)
    responses = [infer(plain_client, scene, case.request) for case in cases]
    assert [response.usage.image_embedding_cached for response in responses] == [cached, True, True, True]
    for case, response in zip(cases, responses, strict=True):
        assert response.text == reference.text(case)
    seconds_until(lambda: metric(server, "florence2_image_embedding_cache_bytes") > 0, limit=10)


def test_a_cache_of_zero_bytes_is_disabled(start_server):
    server = start_server(FLORENCE2_EMBEDDING_CACHE_BYTES="0")
    scene = png(draw(sample_scene(36)))
    with Client(server.grpc_url) as client:
        assert client.detect(scene) == client.detect(scene)
    seconds_until(lambda: requests_counted(server) == 2, limit=10)
    assert metric(server, "florence2_image_embedding_misses_total") == 2
    assert metric(server, "florence2_image_embedding_hits_total") == 0
    assert metric(server, "florence2_image_embedding_cache_bytes") == 0
