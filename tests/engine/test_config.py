import json
from dataclasses import fields
from pathlib import Path

import pytest
from florence2_engine.config import ConfigError, EngineConfig, settings_for_model


def test_settings_in_words_become_a_config():
    config = EngineConfig.from_strings({"checkpoint": "owner/name", "slots": "3", "dtype": "bfloat16"})
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
        ({"threads": "-1"}, "-1"),
        ({"max_image_pixels": "0"}, "max_image_pixels"),
        ({"beams": "3"}, "beams"),
    ],
)
def test_a_wrong_setting_is_named(settings, names):
    with pytest.raises(ConfigError, match=names):
        EngineConfig.from_strings({"checkpoint": "owner/name", **settings} if settings else {})


def test_the_environment_overrides_every_parameter():
    environment = {f"FLORENCE2_{field.name.upper()}": f"e-{field.name}" for field in fields(EngineConfig)}
    parameters = {field.name: f"p-{field.name}" for field in fields(EngineConfig)}
    settings = settings_for_model(parameters, environment, Path("/nowhere"))
    assert settings == {field.name: f"e-{field.name}" for field in fields(EngineConfig)}


def test_an_empty_variable_overrides_nothing():
    assert settings_for_model({"slots": "4"}, {"FLORENCE2_SLOTS": ""}, Path("/nowhere")) == {"slots": "4"}


def test_a_relative_checkpoint_of_the_parameters_lies_in_the_models_folder(tmp_path):
    (tmp_path / "weights").mkdir()
    assert settings_for_model({"checkpoint": "weights"}, {}, tmp_path) == {"checkpoint": str(tmp_path / "weights")}
    assert settings_for_model({"checkpoint": "owner/name"}, {}, tmp_path) == {"checkpoint": "owner/name"}


def test_the_repositorys_model_config_names_settings_that_exist():
    text = (Path(__file__).parents[2] / "model_repository/florence2/config.pbtxt").read_text()
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    model = text_format.Parse(text, model_config_pb2.ModelConfig())
    parameters = {name: value.string_value for name, value in model.parameters.items()}
    config = EngineConfig.from_strings(parameters)
    assert set(parameters) == set(json.loads(config.to_json()))
    assert model.max_batch_size <= config.slots
