"""What is asked: seeded questions about pictures that are all different."""

import io
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import PIL.Image
from florence2 import render_prompt
from florence2.v1 import BoundingBox, GenerationOptions, TaskRequest

from benchmarks.lengths import ALBUM_TASKS, ANSWER_LENGTHS
from training.sampling import sample_scene
from training.scenes import draw

_JPEG_QUALITY = 90
# The longer side, in pixels: from a thumbnail on the web to a full screen.
_LONGER_SIDES = (480, 1280)
_NOISE = 6.0
_WORDS = ("a red circle", "the blue square", "a green triangle on the left", "two yellow squares", "the large sign")


@dataclass(frozen=True)
class Question:
    """A task about a picture, with the length its answer will have.

    Attributes:
        name: unique within its set.
        task: the field of TaskRequest.
        image: a JPEG file.
        request: what our server is sent, generation options aside.
        prompt: what the conventional server is sent, in the official text form.
        answer_tokens: tokens of the answer, its start and end token included.
    """

    name: str
    task: str
    image: bytes
    request: TaskRequest
    prompt: str
    answer_tokens: int

    @property
    def is_short(self) -> bool:
        """Whether it is one of the short tasks."""
        return ANSWER_LENGTHS[self.task].is_short

    def our_request(self, num_beams: int) -> TaskRequest:
        """The request with its options: the answer has exactly `answer_tokens` tokens, the last one forced."""
        options = GenerationOptions(
            num_beams=num_beams, min_new_tokens=self.answer_tokens, max_new_tokens=self.answer_tokens
        )
        request = TaskRequest(generation=options, raw=True)
        request.MergeFrom(self.request)
        return request

    def stamped(self, stamp: str) -> "Question":
        """The same picture in other bytes: a comment in the JPEG.

        A question is asked once a measurement. Without the stamp its picture would be a new one in the first
        measurement only, and our server's image cache would answer for the rest.
        """
        comment = stamp.encode()
        segment = b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment
        return replace(self, image=self.image[:2] + segment + self.image[2:])


@dataclass(frozen=True)
class Subject:
    """What is asked about one picture: tasks, and how long their answers will be."""

    name: str
    seed: int
    lengths: tuple[tuple[str, int], ...]

    def questions(self, attempt: int) -> list[Question]:
        """The questions about the picture of an attempt; other attempts have other pictures, and the same lengths."""
        generator = random.Random(f"{self.seed} {self.name} {attempt}")  # noqa: S311 - seeded on purpose
        image, size = _picture(generator.randrange(2**32))
        questions = []
        for task, answer_tokens in self.lengths:
            request = _request(task, size, generator)
            name = f"{self.name}-{task}"
            questions.append(Question(name, task, image, request, render_prompt(request, size), answer_tokens))
        return questions


def mixed_subjects(count: int, seed: int) -> list[Subject]:
    """`count` pictures with a question each; the fourteen tasks in equal shares and random order."""
    generator = random.Random(seed)  # noqa: S311 - seeded on purpose
    order: list[str] = []
    while len(order) < count:
        order += generator.sample(list(ANSWER_LENGTHS), len(ANSWER_LENGTHS))
    return [_subject(f"mixed-{index}", seed, [task]) for index, task in enumerate(order[:count])]


def album_subjects(count: int, seed: int) -> list[Subject]:
    """`count` pictures with eight questions each."""
    return [_subject(f"album-{index}", seed, ALBUM_TASKS) for index in range(count)]


def caption_subjects(count: int, seed: int) -> list[Subject]:
    """`count` pictures with a caption each, of the three kinds in turn."""
    kinds = ("caption", "detailed_caption", "more_detailed_caption")
    return [_subject(f"single-{index}", seed, [kinds[index % 3]]) for index in range(count)]


def _subject(name: str, seed: int, tasks: Sequence[str]) -> Subject:
    generator = random.Random(f"{seed} {name}")  # noqa: S311 - seeded on purpose
    return Subject(name, seed, tuple((task, ANSWER_LENGTHS[task].sample(generator)) for task in tasks))


def _picture(seed: int) -> tuple[bytes, tuple[int, int]]:
    """A scene with camera noise as a JPEG, and its size."""
    scene = draw(sample_scene(seed))
    generator = np.random.default_rng(seed)
    scale = generator.uniform(*_LONGER_SIDES) / max(scene.size)
    size = (round(scene.width * scale), round(scene.height * scale))
    pixels = np.asarray(scene.resize(size), dtype=np.float32)
    noisy = np.clip(pixels + generator.normal(0.0, _NOISE, pixels.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(noisy).save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue(), size


def _request(task: str, size: tuple[int, int], generator: random.Random) -> TaskRequest:
    width, height = size
    left, top = generator.uniform(0, 0.6) * width, generator.uniform(0, 0.6) * height
    right, bottom = left + generator.uniform(0.1, 0.4) * width, top + generator.uniform(0.1, 0.4) * height
    region = BoundingBox(x_min=left, y_min=top, x_max=right, y_max=bottom)
    words = generator.sample(_WORDS, 2)
    inputs: dict[str, dict[str, object]] = {
        "phrase_grounding": {"caption": f"{words[0]} and {words[1]}."},
        "referring_expression_segmentation": {"expression": words[0]},
        "open_vocabulary_detection": {"query": words[0]},
        "region_to_segmentation": {"region": region},
        "region_to_category": {"region": region},
        "region_to_description": {"region": region},
    }
    return TaskRequest(**{task: inputs.get(task, {})})  # type: ignore[arg-type]
