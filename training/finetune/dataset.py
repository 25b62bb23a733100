"""Encoded examples as batches for Trainer. The images of a frozen vision tower are embedded once, before training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from training.finetune.encoding import EncodedExample
from training.finetune.model import TrainedModel
from training.finetune.progress import Pace

_logger = logging.getLogger(__name__)

IGNORED = -100
"""The label of padding, which has no loss."""

_GIGABYTE = 1e9
_GPU_BATCH = 16

# An example as tensors, or a batch of them.
Tensors = dict[str, Tensor]


class ExampleDataset(Dataset[Tensors]):
    """Examples as tensors.

    Args:
        examples: the examples.
        image: makes an image's pixels or, if `are_embedded`, its embedding.
        are_embedded: which of the two.
    """

    def __init__(
        self, examples: Sequence[EncodedExample], image: Callable[[Path], Tensor], *, are_embedded: bool
    ) -> None:
        self._examples = examples
        self._image = image
        self.are_embedded = are_embedded

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Tensors:
        example = self._examples[index]
        return {
            "input_ids": torch.tensor(example.prompt_ids),
            "labels": torch.tensor(example.label_ids),
            "image_embeddings" if self.are_embedded else "pixels": self._image(example.image),
        }


@dataclass(frozen=True)
class Collator:
    """Pads examples into a batch.

    Attributes:
        pad_token_id: of prompts; answers are padded with `IGNORED`.
        image_tokens: how many tokens an image has, which the attention mask covers too.
    """

    pad_token_id: int
    image_tokens: int

    def __call__(self, examples: Sequence[Tensors]) -> Tensors:
        """Make a batch: padding is on the right."""
        prompts = [example["input_ids"] for example in examples]
        masks = [torch.ones(self.image_tokens + len(prompt), dtype=torch.long) for prompt in prompts]
        labels = [example["labels"] for example in examples]
        key = "image_embeddings" if "image_embeddings" in examples[0] else "pixels"
        return {
            "input_ids": pad_sequence(prompts, batch_first=True, padding_value=self.pad_token_id),
            "attention_mask": pad_sequence(masks, batch_first=True),
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
            key: torch.stack([example[key] for example in examples]),
        }


def embedding_gigabytes(images: int, image_tokens: int, width: int) -> float:
    """The memory of the embeddings of that many images, in float32."""
    return images * image_tokens * width * torch.float32.itemsize / _GIGABYTE


@torch.inference_mode()
def embed_all(
    model: TrainedModel, images: Iterable[Path], load: Callable[[Path], Tensor], device: torch.device
) -> dict[Path, Tensor]:
    """The embedding of each image, (image tokens, d_model), on the CPU.

    Args:
        model: on `device`, in evaluation mode.
        images: image files.
        load: loads the pixels of one.
        device: where the vision tower runs.
    """
    paths = list(dict.fromkeys(images))
    # On a CPU batches are no faster, as in the engine.
    size = 1 if device.type == "cpu" else _GPU_BATCH
    embeddings: dict[Path, Tensor] = {}
    pace = Pace(len(paths))
    for start in range(0, len(paths), size):
        chunk = paths[start : start + size]
        embedded = model.embed_images(torch.stack([load(path) for path in chunk]).to(device)).cpu()
        embeddings |= {path: each.clone() for path, each in zip(chunk, embedded, strict=True)}
        if pace.is_due() or len(embeddings) == len(paths):
            left = pace.left(len(embeddings))
            _logger.info("embedded %d of %d images%s", len(embeddings), len(paths), f"  {left}" if left else "")
    return embeddings
