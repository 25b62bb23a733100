"""The documentation's tables say what the code says. That of the metrics is checked in tests/server/test_metrics.py."""

import json
import re

import florence2
from florence2.cli.task_commands import COMMANDS
from florence2.options import options_table
from florence2_server.config import EngineConfig
from florence2_server.environment import CONFIGS

from tests.conftest import DEMO_CHECKPOINT
from tests.docs.pages import page


def test_the_task_table_is_the_projects():
    rows = re.findall(
        r"^\| `(\w+)\(.*?\)` \| `(\w+)` \| `(<\w+>)` \|.*\| `(\w+)` \|$", page("README.md"), flags=re.MULTILINE
    )
    official = {(task.name, task.token) for task in florence2.TASKS if task.token}
    assert {(field, token) for _, field, token, _ in rows} == official
    for method, _, _, result in rows:
        assert getattr(florence2.Client, method).__annotations__["return"] is getattr(florence2, result)


def test_the_table_of_commands_is_complete():
    rows = re.findall(r"^\| `(\w+)[^`]*` \|.*\| ([^|]+) \|$", page("docs/commands.md"), flags=re.MULTILINE)
    assert list(dict.fromkeys(name for name, _ in rows)) == [command.name for command in COMMANDS]
    methods = {method for _, named in rows for method in re.findall(r"`(\w+)`", named)}
    assert {task.client_method for task in florence2.TASKS} <= methods
    assert all(hasattr(florence2.Client, method) for method in methods)


def test_the_settings_table_is_the_projects():
    table = page("docs/deployment.md")
    rows = dict(re.findall(r"^\| `FLORENCE2_(\w+)` \|([^|]*)\|", table, flags=re.MULTILINE))
    settings = vars(EngineConfig(checkpoint="the demo checkpoint"))
    for config_type in set(CONFIGS) - {EngineConfig}:
        settings |= vars(config_type())
    assert {name.lower(): value.strip(" `") for name, value in rows.items()} == {
        name: str(value) for name, value in settings.items()
    }


def test_the_options_table_is_the_packages():
    """`florence2.options.options_table` writes it."""
    assert options_table() in page("docs/guide.md")


def test_the_figures_are_those_of_the_checkpoint():
    figures = json.loads((DEMO_CHECKPOINT / "figures.json").read_text())["figures"]
    rows = dict(re.findall(r"^\| `(<\w+>)` \| [^|]+ \| ([0-9.]+) \|", page("docs/checkpoints.md"), flags=re.MULTILINE))
    assert rows == {figure["task"]: f"{figure['value']:.3f}" for figure in figures}
