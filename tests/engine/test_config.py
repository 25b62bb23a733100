from pathlib import Path

import pytest
from florence2_server.config import EngineConfig, SupervisionConfig
from florence2_server.environment import CONFIGS
from florence2_server.repository import DEMO_CHECKPOINT
from florence2_server.settings import ConfigError, config_of, setting_names, settings_for_model

NAMES = setting_names(*CONFIGS)


def test_settings_as_text_become_a_config():
    config = config_of(EngineConfig, {"checkpoint": "owner/name", "slots": "3", "dtype": "bfloat16"})
    assert (config.checkpoint, config.slots, config.dtype) == ("owner/name", 3, "bfloat16")
    assert EngineConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, "checkpoint"),
        ({"checkpoint": ""}, "checkpoint"),
        ({"slots": "0"}, "slots"),
        ({"slots": "many"}, "many"),
        ({"device": "tpu"}, "tpu"),
        ({"dtype": "int8"}, "int8"),
        ({"safetensors_only": "2"}, "safetensors_only: got 2, expected 0 or 1"),
        ({"threads": "-1"}, "-1"),
        ({"ahead": "-1"}, "ahead: got -1, expected at least 0"),
        ({"encode_ahead": "yes"}, "encode_ahead: got 'yes', expected one of auto, 0, 1"),
        ({"max_image_pixels": "0"}, "max_image_pixels"),
        ({"max_beams": "9"}, "max_beams: got 9, expected at most 8"),
        ({"max_beams": "6", "rows": "5"}, "rows: got 5, expected 0 or at least 6"),
    ],
)
def test_an_invalid_setting_is_named(settings, names):
    with pytest.raises(ConfigError, match=names):
        config_of(EngineConfig, {"checkpoint": "owner/name", **settings} if settings else {})


@pytest.mark.parametrize("name", setting_names(SupervisionConfig))
def test_an_invalid_setting_of_the_supervision_is_named(name):
    assert getattr(config_of(SupervisionConfig, {name: "7"}), name) == 7
    with pytest.raises(ConfigError, match=f"^{name}: got 0, expected at least 1$"):
        config_of(SupervisionConfig, {name: "0"})


def test_an_unknown_setting_of_a_model_is_named_with_the_nearest_known_one():
    with pytest.raises(ConfigError, match=r"^slot: no such setting, did you mean slots\?$"):
        settings_for_model({"slot": "3"}, {}, Path("/nowhere"), NAMES)


def test_a_models_own_setting_takes_precedence_over_the_environments():
    environment = {f"FLORENCE2_{name.upper()}": f"e-{name}" for name in NAMES}
    assert settings_for_model({}, environment, Path("/nowhere"), NAMES) == {name: f"e-{name}" for name in NAMES}
    own = {name: f"own-{name}" for name in NAMES}
    assert settings_for_model(own, environment, Path("/nowhere"), NAMES) == own


def test_an_empty_variable_counts_as_unset():
    assert settings_for_model({}, {"FLORENCE2_SLOTS": ""}, Path("/nowhere"), ["slots"]) == {}


def test_a_relative_checkpoint_of_a_models_own_is_relative_to_its_folder(tmp_path):
    (tmp_path / "weights").mkdir()
    bundled = settings_for_model({"checkpoint": "weights"}, {}, tmp_path, NAMES)
    assert bundled == {"checkpoint": str(tmp_path / "weights")}
    assert settings_for_model({"checkpoint": "owner/name"}, {}, tmp_path, NAMES) == {"checkpoint": "owner/name"}


def test_the_demo_checkpoint_is_served_if_nothing_names_one():
    assert settings_for_model({}, {}, Path("/nowhere"), NAMES) == {"checkpoint": str(DEMO_CHECKPOINT)}
    named = {"FLORENCE2_CHECKPOINT": "owner/name"}
    assert settings_for_model({}, named, Path("/nowhere"), NAMES) == {"checkpoint": "owner/name"}
