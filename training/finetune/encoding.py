"""From examples to token ids and pixels, exactly as the server makes them from requests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from florence2.errors import InvalidArgumentError
from florence2.prompts import check_request
from florence2.v1 import TaskRequest
from florence2_server.config import EngineConfig
from florence2_server.engine.checkpoint.loading import Checkpoint
from florence2_server.engine.images.image_file import ImageReader
from florence2_server.engine.images.resizing import resizing_of
from florence2_server.engine.limits import positions_limit, prompt_limit
from florence2_server.engine.tokenizer import PromptTokenizer
from florence2_server.stub.prompts import prompt_parts
from florence2_server.v1.engine_pb2 import PromptPart
from torch import Tensor

from training.finetune.errors import DataError, ImageError
from training.finetune.examples import Example

# Regions of a request become tokens only once the image's size is known; prompts in text form have none.
_NO_SIZE = (1, 1)


@dataclass(frozen=True)
class EncodedExample:
    """An example as token ids; each sequence has the start and the end token.

    Attributes:
        image: the image file.
        prompt_ids: of the sentence that the prompt stands for, without image tokens.
        label_ids: of the answer: what the decoder generates after its start token.
    """

    image: Path
    prompt_ids: list[int]
    label_ids: list[int]


class ExampleEncoder:
    """Encodes examples with the tokenizer and the limits of a server that serves the checkpoint.

    Args:
        checkpoint: the base.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        positions = positions_limit(EngineConfig.positions, checkpoint.model.config.text_config.max_position_embeddings)
        self._prompts = PromptTokenizer(checkpoint.tokenizer, prompt_limit(positions, checkpoint.image_tokens))
        self._answers = PromptTokenizer(checkpoint.tokenizer, positions)

    def encode(self, example: Example) -> EncodedExample:
        """Encode one example.

        Raises:
            DataError: the prompt is invalid, or prompt or answer are too long.
        """
        request = TaskRequest(prompt=example.prompt)
        try:
            check_request(request)
            prompt_ids = self._prompts.encode(prompt_parts(request), _NO_SIZE)
            # In answers, as in prompts, `<s>` and the like are text; a location is its token.
            label_ids = self._answers.encode([PromptPart(markup=example.answers[0], field="answer")], _NO_SIZE)
        except InvalidArgumentError as error:
            field, expected = error.field or "prompt", error.requirement or str(error)
            raise DataError(example.origin, field, error.value, expected) from None
        return EncodedExample(example.image, prompt_ids, label_ids)

    def text(self, token_ids: Iterable[int]) -> str:
        """The text of generated tokens, including special tokens."""
        text, _ = self._answers.decode(token_ids)
        return text


class ImageLoader:
    """Loads image files as the server does: as displayed, resized to the pixels that the vision tower reads.

    Args:
        image_processor: the base's.
    """

    def __init__(self, image_processor: Any) -> None:
        self._image_processor = image_processor
        self._reader = ImageReader.of(EngineConfig(checkpoint="any"))
        self._resize = resizing_of(image_processor)

    def __reduce__(self) -> tuple[type[ImageLoader], tuple[Any]]:
        """Let each worker process make its own: a reader has a lock, which cannot be sent to one."""
        return ImageLoader, (self._image_processor,)

    def __call__(self, path: Path) -> Tensor:
        """Pixels, (3, height, width) uint8.

        Raises:
            ImageError: the file is not an image of a known format, is damaged, or exceeds a limit of the server.
        """
        data = path.read_bytes()
        try:
            picture = self._reader.load(self._reader.file(data), data)
        except InvalidArgumentError as error:
            raise ImageError.of(path, error.value, error.requirement or str(error)) from None
        return torch.from_numpy(self._resize(picture))


def count_repetitive(examples: Iterable[EncodedExample], ngram: int) -> int:
    """How many answers repeat `ngram` consecutive tokens, and so cannot be generated if that is forbidden."""

    def repeats(ids: list[int]) -> bool:
        grams = [tuple(ids[start : start + ngram]) for start in range(len(ids) - ngram + 1)]
        return len(set(grams)) < len(grams)

    return sum(repeats(example.label_ids) for example in examples) if ngram else 0
