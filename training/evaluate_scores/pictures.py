"""What is evaluated: images with their true objects, of drawn scenes or of a COCO file."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from training.demo.metrics import Found
from training.demo.sampling import HELD_OUT_SEEDS, sample_scene
from training.demo.scenes import Scene, draw
from training.evaluate_scores.degradation import degraded


@dataclass(frozen=True)
class Picture:
    """An image and its true objects.

    Attributes:
        group: what its figures are reported under, e.g. `clean`.
        content: the image file.
        truth: the true labels and boxes, in pixels of the image as displayed.
    """

    group: str
    content: bytes
    truth: Found


def scene_pictures(first: int, count: int) -> Iterator[Picture]:
    """Held-out scenes of the demo from seed `first` on, clean and degraded."""
    for seed in HELD_OUT_SEEDS[first : first + count]:
        scene = sample_scene(seed)
        image, truth = draw(scene), _truth(scene)
        yield Picture("clean", _png(image), truth)
        yield Picture("degraded", _png(degraded(image, seed)), truth)


def coco_pictures(annotations: Path, images: Path) -> Iterator[Picture]:
    """The images of a COCO detection file. Crowds (`iscrowd`) do not count as objects.

    Args:
        annotations: the file.
        images: the folder to which its file names are relative.

    Raises:
        OSError: a file cannot be read.
        ValueError: the file is not JSON, or an entry lacks a field.
    """
    try:
        content: dict[str, list[dict[str, Any]]] = json.loads(annotations.read_text(encoding="utf-8-sig"))
        names = {category["id"]: str(category["name"]).strip() for category in content["categories"]}
        objects: dict[Any, list[tuple[str, tuple[float, float, float, float]]]] = {}
        for annotation in content["annotations"]:
            if not annotation.get("iscrowd"):
                left, top, width, height = map(float, annotation["bbox"])
                box = (left, top, left + width, top + height)
                objects.setdefault(annotation["image_id"], []).append((names[annotation["category_id"]], box))
        files = [(images / image["file_name"], objects.get(image["id"], [])) for image in content["images"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{annotations}: not a COCO detection file ({error!r})") from None
    for path, found in files:
        yield Picture("images", path.read_bytes(), Found([name for name, _ in found], [box for _, box in found]))


def labels_of(pictures: Sequence[Picture]) -> list[str]:
    """The labels of all true objects, sorted."""
    return sorted({label for picture in pictures for label in picture.truth.labels})


def _truth(scene: Scene) -> Found:
    boxes = [(shape.box.left, shape.box.top, shape.box.right, shape.box.bottom) for shape in scene.shapes]
    return Found([shape.label for shape in scene.shapes], boxes)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()
