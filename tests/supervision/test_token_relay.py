"""What is passed on once, whatever the engines send again."""

import itertools

import pytest
from florence2_server.supervision.token_relay import DivergenceError, TokenRelay
from florence2_server.v1.engine_pb2 import GeneratedTokens, GenerateResponse
from hypothesis import given
from hypothesis import strategies as st

# A token's text is empty while its character is incomplete.
texts_of_tokens = st.lists(st.sampled_from(["", "a", " wörd", "</s>", "猫", "<loc_7>"]), min_size=1, max_size=12)


def ends_of(texts: list[str]) -> list[int]:
    return list(itertools.accumulate(len(text.encode()) for text in texts))


def messages_of(texts: list[str], cuts: list[int], score: float) -> list[GeneratedTokens]:
    """The tokens, in messages that end at the cuts."""
    bounds = [0, *sorted(min(cut, len(texts)) for cut in cuts), len(texts)]
    return [
        GeneratedTokens(
            text="".join(texts[start:end]),
            token_log_probabilities=[score] * (end - start),
            token_masses=[-score] * (end - start),
            token_ends=ends_of(texts)[start:end],
        )
        for start, end in itertools.pairwise(bounds)
    ]


def response_of(texts: list[str], score: float) -> GenerateResponse:
    return GenerateResponse(
        text="".join(texts),
        token_log_probabilities=[score] * len(texts),
        token_masses=[-score] * len(texts),
        token_ends=ends_of(texts),
    )


cuts = st.lists(st.integers(0, 12), max_size=5)


@given(texts_of_tokens, st.lists(st.tuples(cuts, st.integers(0, 6)), min_size=1, max_size=4), cuts)
def test_each_token_is_passed_on_once_whenever_engines_crash(texts, crashes, last_cuts):
    passed = []
    relay = TokenRelay(passed.append)
    for number, (cut, received) in enumerate(crashes):
        relay.restart()
        for message in messages_of(texts, cut, score=-float(number))[:received]:
            relay.receive(message)
    relay.restart()
    for message in messages_of(texts, last_cuts, score=-100.0):
        relay.receive(message)
    response = relay.complete(response_of(texts, score=-100.0))
    assert "".join(tokens.text for tokens in passed) == response.text == "".join(texts)
    assert [end for tokens in passed for end in tokens.token_ends] == list(response.token_ends) == ends_of(texts)
    scores = [score for tokens in passed for score in tokens.token_log_probabilities]
    assert scores == list(response.token_log_probabilities)
    masses = [mass for tokens in passed for mass in tokens.token_masses]
    assert masses == list(response.token_masses) == [-score for score in scores]
    assert all(tokens.text or tokens.token_ends for tokens in passed)


@given(texts_of_tokens, texts_of_tokens, cuts, st.integers(1, 6))
def test_another_answer_is_never_taken_for_the_rest_of_the_first(first, second, cut, received):
    passed = []
    relay = TokenRelay(passed.append)
    for message in messages_of(first, cut, -1.0)[:received]:
        relay.receive(message)
    relay.restart()
    try:
        response = relay.complete(response_of(second, -1.0))
    except DivergenceError:
        sent = [end for tokens in passed for end in tokens.token_ends]
        text = "".join(tokens.text for tokens in passed)
        assert not ("".join(second).startswith(text) and ends_of(second)[: len(sent)] == sent)
    else:
        assert "".join(tokens.text for tokens in passed) == response.text


@pytest.mark.parametrize(
    "second",
    [["a", "b", "X"], ["ab", "", "c"], ["a", "b"], ["a"], []],
    ids=["other text", "other ends", "a token short", "two short", "empty"],
)
def test_a_difference_from_what_was_passed_on_is_found(second):
    relay = TokenRelay(lambda _: None)
    (message,) = messages_of(["a", "b", "c"], [], -1.0)
    relay.receive(message)
    relay.restart()
    with pytest.raises(DivergenceError):
        relay.complete(response_of(second, -1.0))


def test_what_the_response_alone_has_is_passed_on():
    passed = []
    relay = TokenRelay(passed.append)
    relay.receive(messages_of(["a", "b"], [], -1.0)[0])
    relay.complete(response_of(["a", "b", "c"], -2.0))
    assert [tokens.text for tokens in passed] == ["ab", "c"]
    assert list(passed[1].token_log_probabilities) == [-2.0]
    assert list(passed[1].token_masses) == [2.0]
