import pytest
from florence2_server.config import EngineConfig
from florence2_server.engine.errors import CheckpointError
from florence2_server.engine.generation_config import FIELDS, generation_defaults
from florence2_server.engine.limits import positions_limit
from florence2_server.engine.rules import ExponentialDecay
from florence2_server.engine.search_options import EarlyStopping
from transformers import AutoTokenizer, GenerationConfig

LIMITS = {"checkpoint": "somewhere"}
OFFICIAL = {"bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2, "forced_bos_token_id": 0}
OFFICIAL |= {"forced_eos_token_id": 2, "num_beams": 3, "early_stopping": True, "no_repeat_ngram_size": 3}


@pytest.fixture(scope="module")
def tokenizer(real_processor_folder):
    return AutoTokenizer.from_pretrained(real_processor_folder)


@pytest.fixture
def defaults(tokenizer):
    """Makes the defaults of the official config with changes, for a checkpoint with `model_positions`."""

    def make(config: dict, model_positions: int = 1024, **limits):
        settings = EngineConfig(**LIMITS, **limits)
        positions = positions_limit(settings.positions, model_positions)
        return generation_defaults(GenerationConfig(**OFFICIAL | config), tokenizer, positions, settings)

    return make


def test_every_field_of_a_generation_config_is_accounted_for():
    """A new version of transformers may add a field: add it to the table before adopting that version."""
    fields = {name for name in vars(GenerationConfig()) if not name.startswith("_")}
    assert set(FIELDS) == fields


@pytest.mark.parametrize(
    ("config", "name", "value"),
    [
        ({}, "max_new_tokens", 1024),
        ({"stop_strings": [], "sequence_bias": {}}, "max_new_tokens", 1024),  # set, but empty
        ({"max_length": 20}, "max_new_tokens", 1024),  # the library's default
        ({"max_length": 12}, "max_new_tokens", 11),
        ({"max_length": 21}, "max_new_tokens", 20),
        ({"max_length": 5000}, "max_new_tokens", 1024),
        ({"max_length": 12, "max_new_tokens": 30}, "max_new_tokens", 30),
        ({"min_length": 12}, "min_new_tokens", 11),
        ({"min_length": 12, "min_new_tokens": 4}, "min_new_tokens", 4),
        ({"min_length": 12, "min_new_tokens": 0}, "min_new_tokens", 0),
        ({"early_stopping": "never"}, "early_stopping", EarlyStopping.NEVER),
        ({"early_stopping": 1}, "early_stopping", EarlyStopping.HEURISTIC),
        ({"early_stopping": None}, "early_stopping", EarlyStopping.HEURISTIC),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size", 0),
        ({"repetition_penalty": 2}, "repetition_penalty", 2.0),
        (
            {"repetition_penalty": 30.0},
            "repetition_penalty",
            30.0,
        ),  # outside the range of requests, but inside that of `generate()`
        ({"length_penalty": -10}, "length_penalty", -10.0),
        ({"eos_token_id": [2]}, "eos_token_id", 2),
        ({"temperature": 0.2, "top_p": 0.5, "num_return_sequences": 3}, "num_beams", 3),
        ({"guidance_scale": 1.0, "num_beam_groups": 1, "diversity_penalty": 0.0}, "num_beams", 3),
    ],
)
def test_a_default_is_the_value_that_generate_uses(defaults, config, name, value):
    assert getattr(defaults(config), name) == value


@pytest.mark.parametrize(
    ("config", "name", "value"),
    [
        ({"exponential_decay_length_penalty": [5, 1.5]}, "exponential_decay", ExponentialDecay(5, 1.5)),
        ({"bad_words_ids": [[2], [3, 2], [4]]}, "bad_words", ((3, 2), (4,))),
        ({"bad_words_ids": []}, "bad_words", ()),
        ({"suppress_tokens": [-1, 5]}, "suppressed_tokens", (5,)),
        ({"begin_suppress_tokens": [220, 2]}, "begin_suppressed_tokens", (220, 2)),
        ({"encoder_no_repeat_ngram_size": 4}, "encoder_no_repeat_ngram_size", 4),
        ({}, "image_token_id", 51289),
    ],
)
def test_rules_are_read_as_by_generate(defaults, config, name, value):
    assert getattr(defaults(config).rules, name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("encoder_repetition_penalty", 1.5),
        ("sequence_bias", [[[5], -1.0]]),
        ("guidance_scale", 1.5),
        ("renormalize_logits", True),
        ("stop_strings", ["."]),
        ("max_time", 3.0),
        ("num_beam_groups", 3),
        ("diversity_penalty", 0.5),
        ("penalty_alpha", 0.6),
        ("dola_layers", "high"),
        ("force_words_ids", [[5]]),
        ("constraints", ["a"]),
        ("token_healing", True),
        ("is_assistant", True),
        ("use_mtp", True),
        ("watermarking_config", {"bias": 2.5}),
        ("length_penalty", -20),
        ("length_penalty", float("nan")),
        ("length_penalty", "2"),
        ("num_beams", 0),
        ("num_beams", 2.5),
        ("max_length", 1),
        ("no_repeat_ngram_size", 2.5),
        ("encoder_no_repeat_ngram_size", "3"),
        ("repetition_penalty", 0),
        ("repetition_penalty", float("inf")),
        ("exponential_decay_length_penalty", 1.5),
        ("exponential_decay_length_penalty", [5, None]),
        ("bad_words_ids", [5]),
        ("bad_words_ids", [[]]),
        ("bad_words_ids", [[-1]]),
        ("suppress_tokens", ["the"]),
        ("begin_suppress_tokens", 5),
        ("eos_token_id", [2, 5]),
    ],
)
def test_a_field_that_would_change_answers_or_fail_every_request_is_rejected_in_one_line(defaults, name, value):
    with pytest.raises(CheckpointError, match=rf"^generation config: {name}: got ") as error:
        defaults({name: value})
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("forced", [{"forced_bos_token_id": 7}, {"forced_eos_token_id": 7}])
def test_a_token_that_is_forced_after_its_id_is_repaired_must_not_be_suppressed(defaults, forced):
    """Transformers itself rejects a config in which they overlap before the repair."""
    with pytest.raises(
        CheckpointError, match=r"^generation config: suppress_tokens: got \[0, 2\], expected a list without"
    ):
        defaults({"forced_bos_token_id": None, "forced_eos_token_id": None, "suppress_tokens": [0, 2], **forced})


def test_sampling_loads_with_a_warning(defaults, caplog):
    defaults({"do_sample": True, "temperature": 0.7})
    assert "do_sample is true, but the engine searches instead of sampling" in caplog.text
    assert "temperature" in caplog.text


@pytest.mark.parametrize(
    ("setting", "checkpoint", "longest", "positions", "answer"),
    [
        (1024, 1024, 0, "1024 (the checkpoint's positions)", "1024 (the checkpoint's positions)"),
        (1024, 4096, 0, "1024 (FLORENCE2_POSITIONS)", "1024 (FLORENCE2_POSITIONS)"),
        (4096, 4096, 0, "4096 (the checkpoint's positions)", "4096 (the checkpoint's positions)"),
        (4096, 1024, 0, "1024 (the checkpoint's positions)", "1024 (the checkpoint's positions)"),
        (1024, 4096, 100, "1024 (FLORENCE2_POSITIONS)", "100 (FLORENCE2_MAX_NEW_TOKENS)"),
        (1024, 4096, 3000, "1024 (FLORENCE2_POSITIONS)", "1024 (FLORENCE2_POSITIONS)"),
    ],
)
def test_a_limit_names_its_cause(defaults, setting, checkpoint, longest, positions, answer):
    made = defaults({}, checkpoint, positions=setting, max_new_tokens=longest)
    assert (str(made.positions), str(made.longest_completion)) == (positions, answer)
    assert made.max_new_tokens == made.longest_completion.value
