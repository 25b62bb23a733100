"""The setting FLORENCE2_ADAPTERS: a folder, or pairs."""

import os
import re

import pytest
from florence2_server.config import AdapterConfig
from florence2_server.errors import ConfigError
from florence2_server.repository import write_model
from florence2_server.served_model import ServedModel, served_models
from florence2_server.settings import config_of, settings_for_model
from florence2_server.startup import check_models, own_settings

from tests.conftest import DEMO_CHECKPOINT

DEMO = {"FLORENCE2_CHECKPOINT": str(DEMO_CHECKPOINT)}


def test_without_the_setting_there_are_none():
    assert (AdapterConfig().folder, AdapterConfig().pairs) == (None, {})


def test_a_folder_is_a_folder_even_with_an_equals_sign(tmp_path):
    for name in ("adapters", "a=b"):
        (tmp_path / name).mkdir()
        config = AdapterConfig(str(tmp_path / name))
        assert (config.folder, config.pairs) == (tmp_path / name, {})


def test_pairs_have_folders_and_hub_ids():
    config = AdapterConfig("first=/a=b, Second.2_x-y=owner/name@main")
    assert (config.folder, config.pairs) == (None, {"first": "/a=b", "Second.2_x-y": "owner/name@main"})


def test_pairs_may_be_longer_than_a_path():
    pairs = {f"adapter-{number}": f"/models/adapters/{'x' * 200}/{number}" for number in range(32)}
    config = AdapterConfig(",".join(f"{name}={source}" for name, source in pairs.items()))
    assert (config.folder, config.pairs) == (None, pairs)


@pytest.mark.parametrize("name", ["a", "9", "Z" * 64, "a.b-c_d"])
def test_a_name_is_accepted(name):
    assert AdapterConfig(f"{name}=owner/name").pairs == {name: "owner/name"}


@pytest.mark.parametrize("name", [".a", "-a", "_a", "a" * 65, "a b", "a/b", "é", "(other)", "a\n"])
def test_a_name_is_rejected(name):
    message = f"adapters: got the name {name!r}, expected 1 to 64 letters (A-Z, a-z), digits, "
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        AdapterConfig(f"{name}=owner/name")


@pytest.mark.parametrize("text", ["/nowhere", "owner/name", "a=", "a=x/y,", ",", "a=x/y,b"])
def test_another_form_is_rejected(text):
    with pytest.raises(ConfigError, match=r"^adapters: got .*, expected a folder of adapters, or NAME="):
        AdapterConfig(text)


@pytest.mark.parametrize("form", ["{}", "a={}"])
def test_a_path_that_is_not_utf_8_is_rejected(tmp_path, form):
    folder = tmp_path / os.fsdecode(b"no\xffname")
    folder.mkdir()
    with pytest.raises(ConfigError, match=r"^adapters: got '.*no\\udcffname', expected UTF-8$"):
        AdapterConfig(form.format(folder))


def test_a_name_that_is_given_twice_is_rejected():
    with pytest.raises(ConfigError, match=r"^adapters: got the name 'a' twice"):
        AdapterConfig("a=x/y,a=x/z")


def test_an_adapter_in_place_of_the_folder_around_it_is_rejected(tmp_path):
    (tmp_path / "docvqa").mkdir()
    (tmp_path / "docvqa" / "adapter_config.json").touch()
    folder = str(tmp_path / "docvqa")
    with pytest.raises(ConfigError, match=re.escape(f"expected the folder around it, or docvqa={folder}")):
        AdapterConfig(folder)


def test_a_mistake_ends_the_start_before_tritonserver_runs():
    with pytest.raises(ConfigError, match=r"^adapters: got '/nowhere', expected"):
        check_models([ServedModel()], {**DEMO, "FLORENCE2_ADAPTERS": "/nowhere"})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("here", "{0}/here"),
        ("a=here,b=owner/name", "a={0}/here,b=owner/name"),
        ("a=owner/name", "a=owner/name"),
    ],
)
def test_relative_folders_of_a_models_own_setting(tmp_path, monkeypatch, given, expected):
    """On a command line they are relative to the working directory, and in a configuration to the model's folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    (model,) = served_models([], [f"florence2.adapters={given}"])
    assert model.settings == {"adapters": expected.format(tmp_path)}
    write_model(tmp_path, ServedModel("captions", {"adapters": given}))
    folder = tmp_path / "captions"
    (folder / "here").mkdir()
    assert own_settings(folder) == {"adapters": expected.format(folder)}
    settings = settings_for_model({"adapters": given}, {}, folder, ["adapters"])
    assert config_of(AdapterConfig, settings).adapters == expected.format(folder)
