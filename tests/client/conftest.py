"""Shared fixtures: the official processor, if available, and the health command; and the settings of hypothesis."""

from typing import Any

import pytest
from florence2.cli import main
from hypothesis import HealthCheck, settings

# The same examples in every run, so that failures are reproducible.
settings.register_profile(
    "repeatable",
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def processor(real_processor_folder) -> Any:
    """The reference for prompts and answers: Hugging Face's processor with the published configuration."""
    pytest.importorskip("torch", reason="the reference computes with torch")
    transformers = pytest.importorskip("transformers", minversion="5", reason="has the native processor")
    return transformers.Florence2Processor.from_pretrained(real_processor_folder)


@pytest.fixture
def command(capsys):
    """`command(*arguments)`: the exit status and the line of `florence2 health`."""

    def command(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["health", *arguments])
        (line,) = capsys.readouterr().out.splitlines()
        return ended.value.code, line

    return command
