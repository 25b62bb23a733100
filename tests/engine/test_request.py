import pytest
from florence2_engine.request import FinishReason, Request, SearchOptions


def make_request(no_repeat_ngram_size: int) -> Request:
    options = SearchOptions(
        max_new_tokens=100,
        min_new_tokens=0,
        no_repeat_ngram_size=no_repeat_ngram_size,
        suppress_bos=False,
        bos_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_bos_token_id=0,
        forced_eos_token_id=2,
    )
    return Request(image=None, prompt_ids=[0, 2], options=options)


@pytest.mark.parametrize(
    ("size", "tokens", "repeating"),
    [
        (0, [5, 5, 5], []),
        (1, [5, 6], [2, 5, 6]),  # the decoder start token counts too
        (2, [5, 6, 5], [6]),
        (2, [5, 6, 5, 7, 5], [6, 7]),
        (3, [5, 6, 7, 5, 6], [7]),
        (3, [5, 6, 7, 6, 5], []),
        (4, [5], []),
    ],
)
def test_tokens_that_would_repeat_an_ngram_are_found(size, tokens, repeating):
    request = make_request(size)
    for token in tokens:
        request.append(token)
    assert request.repeating_tokens() == repeating


def test_the_answer_holds_the_start_token_and_every_generated_one():
    request = make_request(3)
    for token in (0, 7, 2):
        request.append(token)
    answer = request.answer(FinishReason.STOP)
    assert answer.token_ids == (2, 0, 7, 2)
    assert request.generated == 3
