"""Reads COCO detection files: each image becomes one example, whose answer holds all its objects."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import PIL.Image
from florence2.locations import location_tokens, pixels_to_bins

from training.finetune.errors import DataError, SettingError
from training.finetune.examples import Example

_ORIENTATION = 0x0112  # the EXIF tag
_SIDEWAYS = (5, 6, 7, 8)

# Left, top, width and height in pixels.
CocoBox = tuple[float, float, float, float]


def read_coco(path: Path, prompt: str, classes: Sequence[str]) -> Iterator[Example]:
    """The images of a COCO file; the names of their files are relative to it.

    Crowds (`iscrowd`) are left out: their box is not that of an object. An image without objects becomes an example
    with an empty answer.

    Args:
        path: the file.
        prompt: of every example.
        classes: names of the categories to learn; empty for all.

    Raises:
        DataError: an entry is wrong; the message names it and the field.
        SettingError: one of `classes` is not a category of the file.
    """
    content = _content(path)
    names = _categories(content["categories"], path)
    if unknown := sorted(set(classes) - set(names.values())):
        raise SettingError("classes", unknown[0], f"a category of {path.name} ({', '.join(sorted(names.values()))})")
    objects = _objects(content["annotations"], names, {image["id"] for image in content["images"]}, path)
    for index, image in enumerate(content["images"]):
        origin = f"{path.name}: images[{index}]"
        file = _image_file(image, path, origin)
        found = [(label, box) for label, box in objects[image["id"]] if not classes or label in classes]
        yield Example(file, prompt, (detection_answer(found, _size(image, file, origin)),), origin)


def detection_answer(objects: Sequence[tuple[str, CocoBox]], size: tuple[int, int]) -> str:
    """Each label, followed by the location tokens of all its boxes; labels are in the order of their first object."""
    groups: dict[str, list[CocoBox]] = {}
    for label, box in objects:
        groups.setdefault(label, []).append(box)
    return "".join(label + "".join(_tokens(box, size) for box in boxes) for label, boxes in groups.items())


def _tokens(box: CocoBox, size: tuple[int, int]) -> str:
    left, top, width, height = box
    bins = pixels_to_bins([(left, top), (left + width, top + height)], size)
    return location_tokens(bins.ravel().tolist())


def _content(path: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise DataError(path.name, "file", None, f"JSON ({error})") from None
    for name in ("images", "annotations", "categories"):
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise DataError(path.name, name, entries, "a list, as in COCO's detection files")
        for index, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise DataError(path.name, f"{name}[{index}]", entry, "an object")
            if name != "annotations" and not isinstance(entry.get("id"), int | str):
                raise DataError(f"{path.name}: {name}[{index}]", "id", entry.get("id"), "an id")
    checked: dict[str, list[dict[str, Any]]] = content
    return checked


def _categories(entries: Sequence[Mapping[str, Any]], path: Path) -> dict[Any, str]:
    names = {}
    for index, category in enumerate(entries):
        name = category.get("name")
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{path.name}: categories[{index}]", "name", name, "text that is not empty")
        names[category["id"]] = name.strip()
    return names


def _objects(
    annotations: Sequence[Mapping[str, Any]], names: Mapping[Any, str], images: set[Any], path: Path
) -> dict[Any, list[tuple[str, CocoBox]]]:
    """The objects of each image, by its id, in the order of the file."""
    objects: dict[Any, list[tuple[str, CocoBox]]] = defaultdict(list)
    for index, annotation in enumerate(annotations):
        origin = f"{path.name}: annotations[{index}]"
        image_id, category = annotation.get("image_id"), annotation.get("category_id")
        if not isinstance(image_id, int | str) or image_id not in images:
            raise DataError(origin, "image_id", image_id, "the id of an image")
        if not isinstance(category, int | str) or category not in names:
            raise DataError(origin, "category_id", category, "the id of a category")
        if not annotation.get("iscrowd"):
            objects[image_id].append((names[category], _box(annotation.get("bbox"), origin)))
    return objects


def _box(value: Any, origin: str) -> CocoBox:
    expected = "[left, top, width, height] in pixels, width and height above 0"
    if not isinstance(value, list) or len(value) != len(CocoBox.__args__):  # type: ignore[attr-defined]
        raise DataError(origin, "bbox", value, expected)
    if not all(isinstance(each, int | float) and isfinite(each) for each in value) or min(value[2:]) <= 0:
        raise DataError(origin, "bbox", value, expected)
    left, top, width, height = map(float, value)
    return left, top, width, height


def _image_file(image: Mapping[str, Any], path: Path, origin: str) -> Path:
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        raise DataError(origin, "file_name", name, "the name of an image file, relative to this file")
    if not (file := path.parent / name).is_file():
        raise DataError(origin, "file_name", name, f"an existing file ({file})")
    return file


def _size(image: Mapping[str, Any], file: Path, origin: str) -> tuple[int, int]:
    """The size of the image as displayed, to which boxes refer. The file has to be of the declared size."""
    try:
        with PIL.Image.open(file) as opened:
            size = opened.size
            is_sideways = opened.getexif().get(_ORIENTATION) in _SIDEWAYS
    except OSError as error:
        raise DataError(origin, "file_name", image["file_name"], f"an image ({error})") from None
    width, height = reversed(size) if is_sideways else size
    for name, actual in (("width", width), ("height", height)):
        if image.get(name, actual) != actual:
            expected = f"{actual}, as {file.name} is displayed; boxes would refer to another size"
            raise DataError(origin, name, image[name], expected)
    return width, height
