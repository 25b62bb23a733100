from pathlib import Path

import pytest
from florence2_adapter.config import LogConfig, RequestLimits, SupervisionConfig
from florence2_engine.config import EngineConfig
from florence2_engine.settings import ConfigError, config_of, setting_names, settings_for_model

NAMES = setting_names(EngineConfig, RequestLimits, LogConfig, SupervisionConfig)


def test_settings_in_words_become_a_config():
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
        ({"max_image_pixels": "0"}, "max_image_pixels"),
        ({"max_beams": "9"}, "max_beams: got 9, expected at most 8"),
        ({"max_beams": "6", "rows": "5"}, "rows: got 5, expected 0 or at least 6"),
    ],
)
def test_a_wrong_setting_is_named(settings, names):
    with pytest.raises(ConfigError, match=names):
        config_of(EngineConfig, {"checkpoint": "owner/name", **settings} if settings else {})


@pytest.mark.parametrize("name", setting_names(SupervisionConfig))
def test_a_wrong_setting_of_the_supervision_is_named(name):
    assert getattr(config_of(SupervisionConfig, {name: "7"}), name) == 7
    with pytest.raises(ConfigError, match=f"^{name}: got 0, expected at least 1$"):
        config_of(SupervisionConfig, {name: "0"})


def test_a_parameter_that_is_no_setting_is_named():
    with pytest.raises(ConfigError, match=r"^beams: no such setting; there are checkpoint, safetensors_only, device"):
        settings_for_model({"beams": "3"}, {}, Path("/nowhere"), NAMES)


def test_the_environment_overrides_every_parameter():
    environment = {f"FLORENCE2_{name.upper()}": f"e-{name}" for name in NAMES}
    parameters = {name: f"p-{name}" for name in NAMES}
    settings = settings_for_model(parameters, environment, Path("/nowhere"), NAMES)
    assert settings == {name: f"e-{name}" for name in NAMES}


def test_an_empty_variable_overrides_nothing():
    assert settings_for_model({"slots": "4"}, {"FLORENCE2_SLOTS": ""}, Path("/nowhere"), NAMES) == {"slots": "4"}


def test_a_relative_checkpoint_of_the_parameters_lies_in_the_models_folder(tmp_path):
    (tmp_path / "weights").mkdir()
    bundled = settings_for_model({"checkpoint": "weights"}, {}, tmp_path, NAMES)
    assert bundled == {"checkpoint": str(tmp_path / "weights")}
    assert settings_for_model({"checkpoint": "owner/name"}, {}, tmp_path, NAMES) == {"checkpoint": "owner/name"}


def test_the_repositorys_model_config_names_settings_that_exist():
    text = (Path(__file__).parents[2] / "model_repository/florence2/config.pbtxt").read_text()
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    model = text_format.Parse(text, model_config_pb2.ModelConfig())
    parameters = {name: value.string_value for name, value in model.parameters.items()}
    assert set(parameters) == set(NAMES)
    assert model.max_batch_size <= config_of(EngineConfig, parameters).slots
    assert config_of(SupervisionConfig, parameters) == SupervisionConfig()
    assert config_of(RequestLimits, parameters) == RequestLimits()
    assert config_of(LogConfig, parameters) == LogConfig()
