import json
from dataclasses import replace

import pytest

from tests.conftest import DEMO_CHECKPOINT
from training.finetune.settings import Settings

STEPS = 10  # in the middle of an epoch


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A folder with a few examples of the demo's question: train.jsonl, validation.jsonl, test.jsonl."""
    from training.finetune.demo_question import make_examples

    folder = tmp_path_factory.mktemp("examples")
    make_examples(folder, training=48, validation=12, test=4)
    return folder


@pytest.fixture(scope="session")
def settings(data):
    """`settings(output, **changes)`: a run of a few steps on the demo checkpoint, with an adapter."""
    base = Settings(
        checkpoint=str(DEMO_CHECKPOINT),
        data=str(data / "train.jsonl"),
        validation=str(data / "validation.jsonl"),
        output="-",
        freeze_vision=True,
        dropout=0.1,
        steps=STEPS,
        evaluate_every=4,
        learning_rate=2e-3,
        longest_answer=8,
        log_every=2,
        device="cpu",
    )

    def settings(output, **changes) -> Settings:
        return replace(base, output=str(output), **changes)

    return settings


@pytest.fixture(scope="session")
def adapter_run(settings, tmp_path_factory):
    """A run with an adapter: its output folder and, in `merged`, its merged checkpoint."""
    from training.finetune.run import finetune

    folder = tmp_path_factory.mktemp("adapter")
    finetune(settings(folder / "adapter", merged=str(folder / "merged")))
    return folder


@pytest.fixture(scope="session")
def demo():
    """The demo checkpoint, loaded. Its model must not be trained."""
    from florence2_server.config import EngineConfig
    from florence2_server.engine.checkpoint.conversion import unlimited
    from florence2_server.engine.checkpoint.loading import load

    return load(unlimited(EngineConfig(checkpoint=str(DEMO_CHECKPOINT), device="cpu", dtype="float32")))


@pytest.fixture
def write_jsonl(tmp_path):
    """`write_jsonl(*lines)`: a JSONL file in a folder with the image `a.png`; a line is an object or text."""
    import PIL.Image

    def write(*lines):
        PIL.Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
        file = tmp_path / "train.jsonl"
        file.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
        return file

    return write
