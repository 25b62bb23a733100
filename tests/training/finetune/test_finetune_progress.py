import logging
from types import SimpleNamespace

import pytest
from torch.utils.data import DataLoader
from transformers import TrainerControl, TrainerState

from training.finetune import progress
from training.finetune.callbacks import Log
from training.finetune.progress import Pace


@pytest.fixture
def clock(monkeypatch):
    """`clock.now` in seconds is what the progress is told."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def log(clock, caplog):
    """`log(event, step, **more)`: what the run's log says of it; ten seconds pass before each event."""
    caplog.set_level(logging.INFO)
    callback = Log(silence=10)

    def log(event, step, **more):
        caplog.clear()
        clock.now += 10
        state = TrainerState(global_step=step, max_steps=100, is_world_process_zero=True)
        getattr(callback, f"on_{event}")(None, state, TrainerControl(), **more)
        return caplog.messages

    return log


def test_the_time_left_is_estimated_from_the_pace_so_far(clock):
    pace = Pace(total=100, done=40)
    assert pace.left(40) == ""  # nothing to estimate from
    clock.now = 10
    assert pace.left(50) == "50 s left"
    clock.now = 100
    assert pace.left(50) == "8 min left"
    clock.now = 3600
    assert pace.left(60) == "2.0 h left"
    assert pace.left(100) == ""


def test_a_line_is_due_after_a_silence(clock):
    pace = Pace(total=100, silence=10)
    clock.now = 9
    assert not pace.is_due()
    clock.now = 10
    assert pace.is_due()
    assert not pace.is_due()


def test_a_silent_run_says_how_far_it_is(log):
    assert log("train_begin", 0) == []
    assert log("step_end", 1) == ["step 1 of 100  training  16 min left"]
    assert log("substep_end", 1) == ["step 1 of 100  training  33 min left"]
    assert log("log", 2, logs={"loss": 0.5, "grad_norm": 1.0}) == ["step 2 of 100  training  loss 0.5  24 min left"]


def test_a_silent_evaluation_says_how_far_it_is(log):
    log("train_begin", 0)
    batches = DataLoader(range(3))
    assert log("prediction_step", 4, eval_dataloader=batches) == []
    line = "step 4 of 100  evaluation  batch 2 of 3  10 s left"
    assert log("prediction_step", 4, eval_dataloader=batches) == [line]
    assert log("log", 4, logs={"eval_loss": 0.25, "eval_exact": 1, "eval_runtime": 2.0}) == [
        "step 4 of 100  evaluation  loss 0.25  exact 1"
    ]
    log("evaluate", 4)
    assert log("prediction_step", 8, eval_dataloader=batches) == [], "counted from the start again"
