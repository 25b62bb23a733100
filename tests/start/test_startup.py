"""Checks before the start, the report of a start error, and the format of log lines."""

import re
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from florence2_server.environment import START_ERROR_FILE
from florence2_server.errors import ConfigError
from florence2_server.served_model import ServedModel
from florence2_server.start_error import read_start_error, report_start_error
from florence2_server.startup import check_models

from tests.conftest import DEMO_CHECKPOINT

DEMO = {"checkpoint": str(DEMO_CHECKPOINT)}


def test_valid_models_pass():
    check_models([ServedModel()], {"FLORENCE2_SLOTS": "4"})
    check_models([ServedModel("a", DEMO), ServedModel("b", {"checkpoint": "owner/name"})], {})


@pytest.mark.parametrize(
    ("own", "environment", "message"),
    [
        ({"slots": "0"}, {}, "slots: got 0, expected at least 1"),
        ({}, {"FLORENCE2_STUCK_SECONDS": "0"}, "stuck_seconds: got 0, expected at least 1"),
        (
            {},
            {"FLORENCE2_OBJECTIVE_LONG_SECONDS": "-1"},
            "objective_long_seconds: got -1.0, expected a positive number",
        ),
        ({"checkpoint": "/nowhere"}, {}, "checkpoint '/nowhere': no such folder"),
        ({"slot": "3"}, {}, "slot: no such setting, did you mean slots?"),
    ],
)
def test_a_mistake_is_named(own, environment, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_models([ServedModel("captions", {**DEMO, **own})], environment)


def test_a_mistake_of_one_of_several_models_names_it():
    with pytest.raises(ConfigError, match=r"^model 'b': slots: got 0"):
        check_models([ServedModel("a", DEMO), ServedModel("b", {**DEMO, "slots": "0"})], {})


def test_an_incomplete_checkpoint_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.json is missing"):
        check_models([ServedModel()], {"FLORENCE2_CHECKPOINT": str(tmp_path)})
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "tokenizer.json").touch()
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ConfigError, match=r"config\.json is not JSON"):
        check_models([ServedModel()], {"FLORENCE2_CHECKPOINT": str(tmp_path)})


def test_the_checks_import_no_torch():
    code = "import sys, florence2_server.server_commands, florence2_server.container; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_the_first_reported_start_error_is_read(tmp_path, monkeypatch):
    file = tmp_path / "start-error"
    report_start_error("nobody asked for it")
    assert read_start_error(file) is None
    monkeypatch.setenv(START_ERROR_FILE, str(file))
    report_start_error("one\nline")
    report_start_error("another")
    assert read_start_error(file) == "one line"


def test_log_lines_have_the_format_of_tritons(tmp_path):
    code = (
        "import logging; from florence2_server.log_format import set_up_logging; set_up_logging(); "
        "logging.getLogger('florence2_server.engine').warning('it is loaded')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"TZ": "Asia/Tokyo"}, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    found = re.fullmatch(r"(\S+)Z W \d+ florence2_server\.engine\] it is loaded\n", done.stderr)
    assert found, done.stderr
    assert abs((datetime.now(UTC) - datetime.fromisoformat(f"{found[1]}+00:00")).total_seconds()) < 60
