"""Trains the demo checkpoint: `python -m training.demo.train`. An interrupted run resumes."""

from __future__ import annotations

import argparse
import logging
import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import track
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Florence2Processor
from transformers.utils import logging as library_logging

from training.demo.batches import Batch, Batches, Sampling, Stage
from training.demo.evaluate import CHECKPOINT, RUNS, brief_report
from training.demo.export import export_checkpoint, write_processor
from training.demo.losses import Locations, answer_losses
from training.demo.model import answer_logits, build_model
from training.demo.optimizer import Average, Optimizers, learning_rate
from training.demo.run import Run
from training.demo.sampling import Limits
from training.demo.tokenizer import token_id, train_tokenizer
from training.demo.workers import Workers

LOG = logging.getLogger("training")


@dataclass(frozen=True)
class Plan:
    """A run's settings; `sigma` values are in location bins, durations in steps.

    A text token weighs `text_weight` times a location token: text tokens are fewer, and words are learned last.
    """

    steps: int = 2500
    peak: float = 1e-3
    warmup: int = 100
    cooldown: int = 300
    average_decay: float = 0.995
    clip: float = 1.0
    sigma_first: float = 20.0
    sigma_last: float = 3.0
    sigma_steps: int = 1200
    curriculum: tuple[Stage, ...] = (
        # Words first: once the vision tower is tuned to colors, it hardly sees them.
        Stage(0, Limits(1, 1), reading=1000.0),
        Stage(450, Limits(2, 2), reading=6.0),
        Stage(600, Limits(3, 2)),
        # Counting comes last.
        Stage(1200, Limits(3, 2, repeats=0.5)),
    )
    sampling: Sampling = field(default_factory=Sampling)
    text_weight: float = 3.0
    seed: int = 0
    log_every: int = 20
    save_every: int = 100
    evaluate_every: int = 200

    def sigma(self, step: int) -> float:
        """The width of the location targets at a step, which narrows geometrically."""
        share = min(1.0, step / self.sigma_steps)
        return self.sigma_first * math.pow(self.sigma_last / self.sigma_first, share)

    def rate(self, step: int) -> float:
        """AdamW's learning rate at a step."""
        return learning_rate(step, self.steps, self.peak, self.warmup, self.cooldown)


class Trainer:
    """One run; `train` executes the plan's remaining steps.

    Every evaluation exports the averaged weights to `checkpoint`.
    """

    def __init__(self, plan: Plan, folder: Path, checkpoint: Path, workers: Workers) -> None:
        self.plan = plan
        self.workers = workers
        self.checkpoint = checkpoint
        self.processor_folder = folder / "processor"
        self.tokenizer = prepare_tokenizer(self.processor_folder)
        self.locations = Locations(token_id(self.tokenizer, "<loc_0>"))
        self.model = build_model(self.tokenizer, plan.seed).train()
        self.optimizers = Optimizers(self.model)
        self.average = Average(self.model, plan.average_decay)
        self.run = Run(folder, self.model, self.optimizers, self.average)
        self.meter = Meter()

    def train(self, console: Console) -> None:
        """Train until the plan's last step, saving and reporting on the way."""
        first = self.run.restore()
        LOG.info("from step %d to %d, %d weights", first, self.plan.steps, self.model.num_parameters())
        steps = range(first, self.plan.steps)
        batches = zip(steps, self._batches(steps), strict=True)
        for step, batch in track(batches, "training", total=len(steps), console=console):
            self.meter.add(self._step(step, batch))
            if self.workers.leads:
                self._finish(step + 1)

    def _batches(self, steps: range) -> DataLoader[Batch]:
        """This worker's batches of the steps, made in a separate process."""
        count = self.workers.count
        sampling = replace(self.plan.sampling, scenes=self.plan.sampling.scenes // count)
        batches = Batches(str(self.processor_folder), sampling, self.plan.curriculum, count)
        indices = range(steps.start * count + self.workers.rank, steps.stop * count, count)
        return DataLoader(batches, batch_size=None, sampler=indices, num_workers=1, prefetch_factor=8)

    def _step(self, step: int, batch: Batch) -> Tensor:
        """Update the weights; returns loss and tokens of text, then of locations, summed over all workers, (4,)."""
        losses = self._losses(batch, self.plan.sigma(step))
        totals = self.workers.total(losses.detach())
        torch.autograd.backward((self.plan.text_weight * losses[0] + losses[2]) / totals[1::2].sum())
        self.workers.sum_gradients(self.model.parameters())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.clip)
        self.optimizers.step(self.plan.rate(step))
        self.average.update(self.model, step)
        return totals

    def _losses(self, batch: Batch, sigma: float) -> Tensor:
        """Summed loss and tokens of text, then of locations, (4,); each image is encoded once for all its examples."""
        images = self.model.get_image_features(batch.pixel_values).pooler_output
        losses = torch.zeros(4)
        pad = self.model.config.text_config.pad_token_id
        for group in batch.groups:
            logits = answer_logits(self.model, images[group.images], group.prompt_ids, group.label_ids)
            losses = losses + answer_losses(logits, group.label_ids, pad, self.locations, sigma)
        return losses

    def _finish(self, done: int) -> None:
        """Log, save and evaluate if due after `done` steps."""
        plan, last = self.plan, done == self.plan.steps
        if done % plan.log_every == 0:
            LOG.info("step %d  %s", done, self.meter.flush())
        if last or done % plan.save_every == 0:
            self.run.save(done)
        if last or done % plan.evaluate_every == 0:
            LOG.info("step %d  %s", done, self._evaluate())

    def _evaluate(self) -> str:
        """Export the averaged weights and evaluate them on a few held-out scenes."""
        averaged = build_model(self.tokenizer, self.plan.seed)
        averaged.load_state_dict(self.average.weights, strict=False)
        export_checkpoint(averaged, self.tokenizer, self.checkpoint)
        return brief_report(averaged, Florence2Processor.from_pretrained(self.processor_folder), scenes=50)


class Meter:
    """Mean losses and time since the last `flush`."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start a new period."""
        self.started = time.perf_counter()
        self.steps, self.sums = 0, torch.zeros(4)

    def add(self, losses: Tensor) -> None:
        """Add one step's summed losses and token counts."""
        self.steps += 1
        self.sums += losses

    def flush(self) -> str:
        """The means as text; starts a new period."""
        text, located = self.sums[0] / self.sums[1], self.sums[2] / self.sums[3]
        pace = (time.perf_counter() - self.started) / self.steps
        self.reset()
        return f"text {text:.4f}  locations {located:.4f}  {pace:.2f} s per step"


def prepare_tokenizer(folder: Path) -> Tokenizer:
    """The run's tokenizer, trained on the first call; `folder` holds the matching processor."""
    path = folder / "tokenizer.json"
    if not path.exists():
        # The prompts come from the processor, which needs a tokenizer to be loaded.
        processor = write_processor(train_tokenizer([], scenes=1), folder)
        prompts = [
            *processor.task_prompts_without_inputs.values(),
            *processor.task_prompts_with_input.values(),
        ]
        write_processor(train_tokenizer(prompts), folder)
    return Tokenizer.from_file(str(path))


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=Plan.steps, help="train until this step")
    parser.add_argument("--folder", type=Path, default=RUNS / "demo", help="the run's folder")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="destination of exports")
    parser.add_argument("--threads", type=int, default=2, help="threads per training process")
    return parser.parse_args()


def main() -> None:
    """Train according to the command line."""
    arguments = parse_arguments()
    console = Console(stderr=True)
    handler = RichHandler(console=console, show_level=False, show_path=False)
    logging.basicConfig(format="%(message)s", level=logging.INFO, handlers=[handler])
    library_logging.disable_progress_bar()
    torch.set_num_threads(arguments.threads)
    workers = Workers()
    console.quiet = not workers.leads
    Trainer(Plan(steps=arguments.steps), arguments.folder, arguments.checkpoint, workers).train(console)


if __name__ == "__main__":
    main()
