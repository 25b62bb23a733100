"""What a run shows while it trains: lines in the log, and the loss plot."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.finetune.plot import plot_losses
from training.finetune.progress import SILENCE, Pace

_logger = logging.getLogger(__name__)

_UNLOGGED = {"eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}


class Log(TrainerCallback):
    """Logs the loss and the evaluations, one line each, and how far the run is if there was no line for long.

    Args:
        silence: how long that is, in seconds.
    """

    def __init__(self, silence: float = SILENCE) -> None:
        self._silence = silence
        self._steps = Pace(0)
        self._batches: Pace | None = None  # of an evaluation, while there is one
        self._batch = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:  # noqa: ARG002
        """Note when training began; a run that resumes begins at a later step."""
        self._steps = Pace(state.max_steps, state.global_step, self._silence)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:  # noqa: ARG002
        """Log the progress if that is due."""
        if state.is_world_process_zero and self._steps.is_due():
            _log(state, "training", self._steps.left(state.global_step))

    on_substep_end = on_step_end  # after each of the batches of a step

    def on_prediction_step(
        self,
        args: TrainingArguments,  # noqa: ARG002 - the protocol's
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        eval_dataloader: Any = None,
        **_: Any,
    ) -> None:
        """Log how far an evaluation is, if that is due."""
        total = len(eval_dataloader)
        if self._batches is None:
            self._batches, self._batch = Pace(total, 1, self._silence), 0
        self._batch += 1
        if state.is_world_process_zero and self._batches.is_due():
            _log(state, "evaluation", f"batch {self._batch} of {total}", self._batches.left(self._batch))

    def on_evaluate(self, *_: Any, **__: Any) -> None:
        """Note the end of an evaluation."""
        self._batches = None
        self._steps.has_logged()

    def on_log(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Log the figures among `logs`."""
        figures = logs or {}
        shown = [name for name in figures if name == "loss" or (name.startswith("eval_") and name not in _UNLOGGED)]
        if not state.is_world_process_zero or not shown:
            return
        values = [f"{name.removeprefix('eval_')} {figures[name]:.4g}" for name in shown]
        if "loss" in figures:
            _log(state, "training", *values, self._steps.left(state.global_step))
            self._steps.has_logged()
        else:
            _log(state, "evaluation", *values)


def _log(state: TrainerState, *parts: str) -> None:
    _logger.info("  ".join([f"step {state.global_step} of {state.max_steps}", *filter(None, parts)]))


class LossPlot(TrainerCallback):
    """Keeps `loss.png` in the output folder up to date.

    Args:
        folder: the output folder.
        measure: plotted too.
    """

    def __init__(self, folder: Path, measure: str) -> None:
        self._path = folder / "loss.png"
        self._measure = measure

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:  # noqa: ARG002
        """Plot what has been logged so far."""
        if state.is_world_process_zero:
            plot_losses(state.log_history, self._measure, self._path)
