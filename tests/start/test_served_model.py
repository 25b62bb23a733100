"""Served models, as a command line or the environment describes them, and as Triton's repository has them."""

import pytest
from florence2_server.errors import ConfigError
from florence2_server.repository import write_model
from florence2_server.served_model import ServedModel, served_models
from florence2_server.startup import models_in, own_settings


def test_without_any_there_is_one_model_without_settings_of_its_own():
    assert served_models([], []) == (ServedModel("florence2", {}),)


def test_models_have_checkpoints_and_settings_of_their_own():
    found = served_models(
        ["captions=owner/a@main", "docs-2=owner/b"], ["captions.slots=8", "captions.slots=9", "docs-2.dtype=float16"]
    )
    assert found == (
        ServedModel("captions", {"checkpoint": "owner/a@main", "slots": "9"}),
        ServedModel("docs-2", {"checkpoint": "owner/b", "dtype": "float16"}),
    )


def test_the_default_model_can_have_settings_of_its_own():
    assert served_models([], ["florence2.slots=8"]) == (ServedModel("florence2", {"slots": "8"}),)


def test_a_relative_folder_is_relative_to_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "weights").mkdir()
    monkeypatch.chdir(tmp_path)
    (model,) = served_models(["captions=weights"], [])
    assert model.settings == {"checkpoint": str(tmp_path / "weights")}


@pytest.mark.parametrize("name", ["a", "captions", "a-b_c9", "a" * 40])
def test_a_name_is_accepted(name):
    assert ServedModel(name).name == name


@pytest.mark.parametrize("name", ["", "A", "9a", "_a", "a b", "a/b", "é", "a" * 41, "a_stream", "a_health", "a\n"])
def test_a_name_is_rejected(name):
    with pytest.raises(ConfigError, match=r"^model: got the name "):
        ServedModel(name)


@pytest.mark.parametrize(
    ("models", "settings", "message"),
    [
        (["captions"], [], "model: got 'captions', expected NAME=CHECKPOINT"),
        (["captions="], [], "model: got 'captions=', expected NAME=CHECKPOINT"),
        (["a=x/y", "a=x/z"], [], "model: got the name 'a' twice, expected different names"),
        (["a=x/y"], ["a.slots"], "model setting: got 'a.slots', expected NAME.SETTING=VALUE"),
        (["a=x/y"], ["slots=8"], "model setting: got 'slots=8', expected NAME.SETTING=VALUE"),
        (["a=x/y"], ["b.slots=8"], "model setting: got 'b.slots=8', expected one of the models a"),
    ],
)
def test_a_text_of_another_form_is_named(models, settings, message):
    with pytest.raises(ConfigError) as error:
        served_models(models, settings)
    assert str(error.value) == message


def test_a_written_model_has_its_name_and_its_settings(tmp_path):
    settings = {"slots": "8", "checkpoint": 'a "quoted" \\ folder, ü'}
    write_model(tmp_path, ServedModel("captions", settings))
    for suffix in ("", "_stream", "_health"):
        config = (tmp_path / f"captions{suffix}" / "config.pbtxt").read_text()
        assert f'name: "captions{suffix}"' in config
        assert '"florence2' not in config
    assert own_settings(tmp_path / "captions") == settings
    assert own_settings(tmp_path / "captions_stream") == {}


def test_the_served_models_of_a_repository_are_those_that_run_an_engine(tmp_path):
    write_model(tmp_path, ServedModel("captions", {"slots": "8"}))
    folders = sorted(tmp_path.iterdir())
    assert list(models_in(folders)) == [ServedModel("captions", {"slots": "8"})]
