"""Results as a COCO dataset, written piece by piece, because it may be larger than the memory."""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any

import numpy as np

from florence2.bulk.storage import Location
from florence2.coco import Located, annotations, category_names
from florence2.results import Detections, Segmentation, TextRegions


def write_coco(target: Location, lines: Callable[[], Iterator[dict[str, Any]]], task_name: str) -> None:
    """Write the boxes, outlines or quads of one task, as `florence2.coco` does.

    An image's `file_name` is its place in the source, and `id_in_source` its id there.

    Args:
        target: the file.
        lines: returns an iterator over all results; called once for each part of the dataset.
        task_name: the task.
    """
    names = sorted({name for line in lines() for name in category_names(_result(line, task_name))})
    ids = {name: number for number, name in enumerate(names, start=1)}
    with target.replaced() as file:
        for before, name, entries in (
            ("{", "images", _images(lines())),
            (",", "categories", ({"id": number, "name": name} for name, number in ids.items())),
            (",", "annotations", _annotations(lines(), task_name, ids)),
        ):
            for piece in _section(f'{before}"{name}": [', entries):
                file.write(piece.encode())
        file.write(b"}\n")


def _section(beginning: str, entries: Iterable[dict[str, Any]]) -> Iterator[str]:
    yield beginning
    for index, entry in enumerate(entries):
        yield f"{',' if index else ''}\n{json.dumps(entry)}"
    yield "]"


def _images(lines: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        width, height = line["image_size"]
        names = {"file_name": line["image"], "id_in_source": line["id"]}
        yield {"id": number, **names, "width": width, "height": height}


def _annotations(lines: Iterator[dict[str, Any]], task_name: str, ids: dict[str, int]) -> Iterator[dict[str, Any]]:
    numbers = count(1)
    for image_id, line in enumerate(lines, start=1):
        for annotation in annotations(image_id, _result(line, task_name), ids):
            yield {"id": next(numbers), **annotation}


def _result(line: dict[str, Any], task_name: str) -> Located:
    """The result that a line was made from, as far as COCO has it."""
    data = line["results"][task_name]
    items = data["items"]
    scores = np.array([item["score"] for item in items], np.float32) if items and "score" in items[0] else None
    polygons = [[np.array(each, np.float32).reshape(-1, 2) for each in item.get("polygons", [])] for item in items]
    match data["type"]:
        case "detections":
            boxes = np.array([item["box"] for item in items], np.float32).reshape(-1, 4)
            return Detections(boxes, [item["label"] for item in items], scores, polygons)
        case "segmentation":
            return Segmentation(polygons, [item["label"] for item in items], scores)
    quads = np.array([item["quad"] for item in items], np.float32).reshape(-1, 8)
    return TextRegions(quads, [item["text"] for item in items], scores)
