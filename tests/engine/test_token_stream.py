"""Tokens are sent as soon as they are certain, and what is sent is what the completion begins with."""

import random
from concurrent.futures import CancelledError

import pytest
import torch
from florence2.v1 import GenerationOptions, TaskRequest
from florence2_server.engine.search import Search
from florence2_server.engine.search_options import EarlyStopping
from florence2_server.engine.searches import BeamSearch
from florence2_server.stub.prompts import prompt_parts
from florence2_server.v1.engine_pb2 import GeneratedTokens, GenerateRequest, GenerateResponse
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import DEMO_CHECKPOINT, EXAMPLE_SCENE
from tests.engine.served import Served
from tests.engine.test_parity import OPTIONS
from tests.engine.test_search import BOS, EOS, VOCABULARY, advance, logits_preferring, make_generation
from tests.reference import TASKS

SCENE = EXAMPLE_SCENE.read_bytes()

search_options = st.fixed_dictionaries(
    {
        "num_beams": st.integers(1, 5),
        "max_new_tokens": st.integers(1, 25),
        "min_new_tokens": st.sampled_from([0, 0, 5]),
        "early_stopping": st.sampled_from(EarlyStopping),
        "length_penalty": st.sampled_from([-1.0, 0.0, 1.0, 2.0]),
        "no_repeat_ngram_size": st.sampled_from([0, 0, 1, 3]),
        "forced_bos_token_id": st.sampled_from([None, BOS]),
        "forced_eos_token_id": st.sampled_from([None, EOS]),
    }
)


@settings(max_examples=300, deadline=None)
@given(search_options, st.integers(0, 2**32 - 1), st.sampled_from([1.0, 5.0, 20.0]))
def test_certain_tokens_are_always_those_of_the_completion(options, seed, sharpness):
    generation = make_generation(**options)
    search = generation.search
    generator = torch.Generator().manual_seed(seed)
    token_ids, log_probabilities = [], []
    while search.completion is None:
        logits = sharpness * torch.randn(search.beams, VOCABULARY, generator=generator)
        advance([generation], logits)
        certain = search.take_certain()
        token_ids += certain.token_ids
        log_probabilities += certain.log_probabilities
        assert len(token_ids) == len(log_probabilities)
        if search.completion is None:
            assert token_ids == shared_by_all_that_may_win(search)
    assert len(token_ids) < len(search.completion.token_ids) - 1
    assert tuple(token_ids) == search.completion.token_ids[1 : len(token_ids) + 1]
    assert tuple(log_probabilities) == search.completion.log_probabilities[: len(token_ids)]


def shared_by_all_that_may_win(search: Search) -> list[int]:
    """The common prefix, token by token, of the running beams and the best finished one without its last token."""
    rivals = search.history.tolist()
    if isinstance(search, BeamSearch) and search._finished:
        rivals.append(list(search._finished[0].completion.token_ids[:-1]))
    shared = []
    for tokens in zip(*rivals, strict=False):
        if len(set(tokens)) > 1:
            break
        shared.append(tokens[0])
    return shared[1:]


def test_every_greedy_token_is_certain_at_once():
    search = (generation := make_generation()).search
    taken = []
    for token in (5, 6, 7):
        advance([generation], logits_preferring(token))
        taken.append(search.take_certain().token_ids)
    assert taken == [[BOS], [6], [7]]


def test_tokens_are_uncertain_while_a_finished_beam_without_them_may_win():
    generation = make_generation(num_beams=2, forced_bos_token_id=None, length_penalty=0.0)
    search = generation.search
    for preferred in ((5, 6), (7, 7)):
        advance([generation], torch.cat([9 * logits_preferring(preferred[0]), logits_preferring(preferred[1])]))
    assert search.take_certain().token_ids == [5]
    end_or_continue = torch.full((2, VOCABULARY), -30.0)
    end_or_continue[:, EOS], end_or_continue[:, 8] = 1, 0
    advance([generation], end_or_continue)
    assert search.completion is None
    assert 8 not in search.take_certain().token_ids, "the beam that ended before it is still the best"


@pytest.fixture(scope="module", params=["random weights", "demo checkpoint"])
def served(request):
    folder = DEMO_CHECKPOINT
    if request.param == "random weights":
        folder = request.getfixturevalue("random_checkpoint")
    with Served(folder, slots=4) as served:
        yield served


def streamed(served: Served, task: dict, options: dict) -> tuple[list[GeneratedTokens], GenerateResponse]:
    """The messages of a generation, and its response."""
    request = TaskRequest(**task, generation=GenerationOptions(**options))
    message = GenerateRequest(image=SCENE, prompt=prompt_parts(request), generation=request.generation)
    generation = served._preparation.prepare(message)
    stream = served._preparation.stream(generation)
    served.engine.submit(generation)
    messages = list(stream)
    return messages, served._preparation.response(generation, generation.future.result())


def assert_together(messages: list[GeneratedTokens], response: GenerateResponse) -> None:
    """All messages together are the response."""
    assert "".join(message.text for message in messages) == response.text
    ends = [end for message in messages for end in message.token_ends]
    assert ends == list(response.token_ends)
    scores = [score for message in messages for score in message.token_log_probabilities]
    assert scores == list(response.token_log_probabilities)
    masses = [mass for message in messages for mass in message.token_masses]
    assert masses == list(response.token_masses)
    assert len(masses) == len(scores)
    assert all(message.image_size == response.image_size for message in messages)
    assert all(message.token_ends for message in messages)
    so_far = b""
    for message in messages:
        so_far += message.text.encode()
        assert len(so_far) == message.token_ends[-1]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_messages_together_are_the_response(served, options):
    for task in random.Random(str(options)).sample(TASKS, 2):
        assert_together(*streamed(served, task, options))


def test_messages_come_before_the_completion(served):
    for beams in (1, 3):
        messages, _ = streamed(served, TASKS[0], {"num_beams": beams, "min_new_tokens": 100, "max_new_tokens": 101})
        assert len(messages) > 1


def test_a_cancelled_generation_ends_its_stream(served):
    message = GenerateRequest(image=SCENE, prompt=prompt_parts(TaskRequest(caption={})))
    message.generation.min_new_tokens, message.generation.num_beams = 1000, 1
    generation = served._preparation.prepare(message)
    stream = iter(served._preparation.stream(generation))
    served.engine.submit(generation)
    assert next(stream).text.startswith("</s><s>")
    generation.future.cancel()
    with pytest.raises(CancelledError):
        list(stream)
