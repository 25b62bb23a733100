"""Seeded requests, each group about an image of its own."""

import io
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import PIL.Image
from florence2 import render_prompt
from florence2.v1 import BoundingBox, GenerationOptions, TaskRequest

from benchmarks.harness.lengths import ALBUM_TASKS, ANSWER_LENGTHS
from training.demo.sampling import sample_scene
from training.demo.scenes import draw

_JPEG_QUALITY = 90
# Of the longer side, in pixels: from a thumbnail on the web to a full screen.
_LONGER_SIDES = (480, 1280)
_NOISE = 6.0
_WORDS = ("a red circle", "the blue square", "a green triangle on the left", "two yellow squares", "the large sign")


@dataclass(frozen=True)
class Request:
    """A task about an image, with the length its answer will have.

    Attributes:
        name: unique within its set.
        task: the field of TaskRequest.
        image: a JPEG file.
        task_request: the message for our server, without generation options.
        prompt: the text for the conventional server, in the official form.
        answer_tokens: length of the answer, its start and end token included.
    """

    name: str
    task: str
    image: bytes
    task_request: TaskRequest
    prompt: str
    answer_tokens: int

    @property
    def is_short(self) -> bool:
        """Whether its task is short."""
        return ANSWER_LENGTHS[self.task].is_short

    def to_task_request(self, num_beams: int) -> TaskRequest:
        """The message with options that make the answer exactly `answer_tokens` long, its last token forced."""
        options = GenerationOptions(
            num_beams=num_beams, min_new_tokens=self.answer_tokens, max_new_tokens=self.answer_tokens
        )
        message = TaskRequest(generation=options, raw=True)
        message.MergeFrom(self.task_request)
        return message

    def stamped(self, stamp: str) -> "Request":
        """The same image in different bytes: with a comment in the JPEG.

        Each measurement sends every request once. Without the stamp our server would find the image in its cache from
        the second measurement on.
        """
        comment = stamp.encode()
        segment = b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment
        return replace(self, image=self.image[:2] + segment + self.image[2:])


@dataclass(frozen=True)
class RequestGroup:
    """A recipe for requests about one image.

    Attributes:
        name: unique within its set.
        seed: of the image and the inputs.
        lengths: for each request its task and the length of its answer.
    """

    name: str
    seed: int
    lengths: tuple[tuple[str, int], ...]

    def requests(self, attempt: int) -> list[Request]:
        """Draw the image and the requests of an attempt; attempts differ in their images, not in their lengths."""
        generator = random.Random(f"{self.seed} {self.name} {attempt}")  # noqa: S311 - seeded on purpose
        image, size = _image(generator.randrange(2**32))
        requests = []
        for task, answer_tokens in self.lengths:
            task_request = _task_request(task, size, generator)
            prompt = render_prompt(task_request, size)
            requests.append(Request(f"{self.name}-{task}", task, image, task_request, prompt, answer_tokens))
        return requests


def mixed_groups(count: int, seed: int) -> list[RequestGroup]:
    """`count` images with one request each; the fourteen tasks in equal shares and random order."""
    generator = random.Random(seed)  # noqa: S311 - seeded on purpose
    order: list[str] = []
    while len(order) < count:
        order += generator.sample(list(ANSWER_LENGTHS), len(ANSWER_LENGTHS))
    return [_group(f"mixed-{index}", seed, [task]) for index, task in enumerate(order[:count])]


def album_groups(count: int, seed: int) -> list[RequestGroup]:
    """`count` images with eight requests each."""
    return [_group(f"album-{index}", seed, ALBUM_TASKS) for index in range(count)]


def caption_groups(count: int, seed: int) -> list[RequestGroup]:
    """`count` images with one caption request each, cycling through the three kinds."""
    kinds = ("caption", "detailed_caption", "more_detailed_caption")
    return [_group(f"single-{index}", seed, [kinds[index % 3]]) for index in range(count)]


def _group(name: str, seed: int, tasks: Sequence[str]) -> RequestGroup:
    generator = random.Random(f"{seed} {name}")  # noqa: S311 - seeded on purpose
    return RequestGroup(name, seed, tuple((task, ANSWER_LENGTHS[task].sample(generator)) for task in tasks))


def _image(seed: int) -> tuple[bytes, tuple[int, int]]:
    """A scene with camera noise as a JPEG, and its width and height."""
    scene = draw(sample_scene(seed))
    generator = np.random.default_rng(seed)
    scale = generator.uniform(*_LONGER_SIDES) / max(scene.size)
    size = (round(scene.width * scale), round(scene.height * scale))
    pixels = np.asarray(scene.resize(size), dtype=np.float32)
    noisy = np.clip(pixels + generator.normal(0.0, _NOISE, pixels.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(noisy).save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue(), size


def _task_request(task: str, size: tuple[int, int], generator: random.Random) -> TaskRequest:
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
    message = TaskRequest()
    field = getattr(message, task)
    field.SetInParent()  # a task without inputs is an empty message
    field.MergeFrom(type(field)(**inputs.get(task, {})))
    return message
