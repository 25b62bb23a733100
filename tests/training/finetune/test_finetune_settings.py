import re
import shlex
from dataclasses import fields

import pytest

from tests.conftest import ROOT
from training.finetune.errors import SettingError
from training.finetune.settings import RECIPES, Settings, parse, read_recipe

NEEDED = ["--checkpoint", "base", "--data", "d", "--validation", "v", "--output", "o"]


def test_the_command_line_overrides_the_recipe():
    settings = parse(["--recipe", "docvqa", *NEEDED, "--method", "lora", "--epochs", "2", "--no-freeze-vision"])
    assert (settings.method, settings.epochs, settings.freeze_vision) == ("lora", 2, False)
    # As in the notebook.
    assert (settings.learning_rate, settings.rank, settings.alpha, settings.rslora) == (1e-6, 8, 8, True)


@pytest.mark.parametrize("recipe", sorted(path.stem for path in RECIPES.glob("*.toml")))
def test_every_recipe_is_valid(recipe):
    assert (
        parse(["--recipe", recipe, *NEEDED]).measure
        == {"docvqa": "anls", "detection": "f1", "captions": "loss"}[recipe]
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("colour = 1", "own.toml: colour: got 1, expected a known setting (accumulate, alpha, "),
        ("rank = '8'", "own.toml: rank: got '8', expected a value of type int"),
        ("rank = true", "own.toml: rank: got True, expected a value of type int"),
        ("classes = [1]", "own.toml: classes: got [1], expected a list of strings"),
    ],
)
def test_a_wrong_line_of_a_recipe_is_named(tmp_path, line, message):
    (tmp_path / "own.toml").write_text(line)
    with pytest.raises(SettingError) as raised:
        read_recipe(str(tmp_path / "own.toml"))
    assert str(raised.value).startswith(message)


def test_an_unknown_recipe_names_those_there_are():
    with pytest.raises(SettingError, match="recipe: got 'x', expected a TOML file, or one of captions, detection, doc"):
        read_recipe("x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (NEEDED[:-2], "output: got '', expected a value, from the command line or the recipe"),
        ([*NEEDED, "--batch", "0"], "batch: got 0, expected a number above 0"),
        ([*NEEDED, "--learning-rate", "nan"], "learning_rate: got nan, expected a number above 0"),
        ([*NEEDED, "--dropout", "1"], "dropout: got 1.0, expected a number from 0 to below 1"),
        ([*NEEDED, "--method", "full", "--merged", "m"], "merged: got 'm', expected no folder"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_expected(arguments, message):
    with pytest.raises(SettingError) as raised:
        parse(arguments)
    assert str(raised.value).startswith(message)


def test_validation_is_a_file_or_a_fraction():
    assert parse(NEEDED).validation_fraction is None
    assert parse([*NEEDED, "--validation", "0.1"]).validation_fraction == 0.1
    with pytest.raises(SettingError, match="validation: got '2', expected a file, a folder, or a fraction between"):
        _ = parse([*NEEDED, "--validation", "2"]).validation_fraction


def test_the_commands_and_names_of_the_readme_are_valid():
    text = (ROOT / "training" / "finetune" / "README.md").read_text()
    commands = re.findall(r"python -m training\.finetune ((?:.*\\\n)*.*)", text)
    assert commands
    for command in commands:
        parse(shlex.split(command.replace("\\\n", " ")))
    options = {f"--{each.name.replace('_', '-')}" for each in fields(Settings)} | {"--help", "--num_processes"}
    assert set(re.findall(r"--[a-z_-]+[a-z]", text)) <= options | {"--recipe", "--adapter"}


def test_the_help_describes_every_setting(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    shown = capsys.readouterr().out
    assert all(f"--{each.name.replace('_', '-')}" in shown for each in fields(Settings))
