from dataclasses import fields, replace

import pytest
from florence2.errors import InvalidArgumentError
from florence2.options import GENERATION_OPTIONS, Limit, set_options
from florence2.v1 import GenerationOptions, TaskRequest
from florence2_server.engine.options import GenerationDefaults
from florence2_server.engine.rules import CheckpointRules
from florence2_server.engine.search_options import EarlyStopping, SearchOptions

DEFAULTS = GenerationDefaults(
    positions=Limit(1024, "the checkpoint's positions"),
    longest_completion=Limit(1000, "FLORENCE2_MAX_NEW_TOKENS"),
    most_beams=6,
    max_new_tokens=1000,
    min_new_tokens=0,
    num_beams=3,
    length_penalty=1.0,
    early_stopping=EarlyStopping.FIRST,
    no_repeat_ngram_size=3,
    repetition_penalty=1.5,
    suppress_bos=False,
    rules=CheckpointRules(),
    bos_token_id=0,
    eos_token_id=2,
    decoder_start_token_id=2,
    forced_bos_token_id=0,
    forced_eos_token_id=2,
)


def test_the_options_of_a_search_are_the_declared_ones():
    names = {field.name for field in fields(SearchOptions)}
    only_the_checkpoint_sets = {name for name in names if name == "rules" or name.endswith("_token_id")}
    assert names - only_the_checkpoint_sets == set(GENERATION_OPTIONS)


@pytest.mark.parametrize("name", GENERATION_OPTIONS)
def test_an_option_of_a_request_is_in_force_and_leaves_the_others_alone(name):
    option, own = GENERATION_OPTIONS[name], getattr(DEFAULTS, name)
    values = option.choices or ((True, False) if option.type is bool else (option.least, option.least + 1))
    value = next(value for value in values if value != getattr(own, "value", own))
    request = TaskRequest()
    set_options(request, {name: value})
    completed = DEFAULTS.complete(request.generation)
    expected = type(own)(value)
    assert getattr(completed, name) == (pytest.approx(expected) if option.type is float else expected)
    assert replace(completed, **{name: own}) == DEFAULTS.complete(GenerationOptions())


def test_options_default_to_the_checkpoints_own():
    options = DEFAULTS.complete(GenerationOptions())
    assert (options.max_new_tokens, options.min_new_tokens, options.no_repeat_ngram_size) == (1000, 0, 3)
    assert (options.num_beams, options.length_penalty, options.early_stopping) == (3, 1.0, EarlyStopping.FIRST)
    assert not options.suppress_bos


def test_a_request_chooses_its_search():
    options = DEFAULTS.complete(GenerationOptions(num_beams=6, length_penalty=-2, early_stopping=3))
    assert (options.num_beams, options.length_penalty, options.early_stopping) == (6, -2, EarlyStopping.NEVER)


def test_an_option_that_is_set_wins_even_if_it_is_zero():
    options = DEFAULTS.complete(
        GenerationOptions(max_new_tokens=7, min_new_tokens=7, no_repeat_ngram_size=0, suppress_bos=True, num_beams=1)
    )
    assert (options.max_new_tokens, options.min_new_tokens, options.no_repeat_ngram_size) == (7, 7, 0)
    assert options.suppress_bos


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "generation.max_new_tokens: got 0, expected 1 to 1000 (FLORENCE2_MAX_NEW_TOKENS)"),
        (
            {"max_new_tokens": 1001},
            "generation.max_new_tokens: got 1001, expected 1 to 1000 (FLORENCE2_MAX_NEW_TOKENS)",
        ),
        ({"max_new_tokens": 5, "min_new_tokens": 6}, "generation.min_new_tokens: got 6, expected 0 to 5"),
        ({"no_repeat_ngram_size": -1}, "generation.no_repeat_ngram_size: got -1, expected 0 to 1024"),
        ({"repetition_penalty": 0}, "generation.repetition_penalty: got 0.0, expected 0.1 to 10"),
        ({"repetition_penalty": 10.5}, "generation.repetition_penalty: got 10.5, expected 0.1 to 10"),
        ({"repetition_penalty": float("nan")}, "generation.repetition_penalty: got nan, expected 0.1 to 10"),
        ({"num_beams": 0}, "generation.num_beams: got 0, expected 1 to 6"),
        ({"num_beams": 7}, "generation.num_beams: got 7, expected 1 to 6"),
        ({"length_penalty": 10.5}, "generation.length_penalty: got 10.5, expected -10 to 10"),
        ({"length_penalty": float("nan")}, "generation.length_penalty: got nan, expected -10 to 10"),
    ],
)
def test_an_option_out_of_range_is_rejected_with_its_name_and_limit(options, message):
    with pytest.raises(InvalidArgumentError) as error:
        DEFAULTS.complete(GenerationOptions(**options))
    assert str(error.value).startswith(message)
