"""Results as a COCO dataset, written piece by piece: its parts may be larger than the memory."""

import json
from collections.abc import Callable, Iterator
from itertools import chain, count
from typing import Any

from florence2.bulk.storage import Location


def write_coco(target: Location, lines: Callable[[], Iterator[dict[str, Any]]], task_name: str) -> None:
    """Write the boxes, outlines or quads of one task.

    Categories are numbered from 1 in the order in which labels occur. An image's `file_name` is its place in the
    source, and `id_in_source` its id there.

    Args:
        target: the file.
        lines: begins the results anew; called twice.
        task_name: the task.
    """
    categories: dict[str, int] = {}
    with target.replaced() as file:
        for piece in chain(
            _section("images", _images(lines()), "{"),
            _section("annotations", _annotations(lines(), task_name, categories), ","),
            _section("categories", _categories(categories), ","),
            ["}\n"],
        ):
            file.write(piece.encode())


def _section(name: str, entries: Iterator[dict[str, Any]], before: str) -> Iterator[str]:
    yield f'{before}"{name}": ['
    for index, entry in enumerate(entries):
        yield f"{',' if index else ''}\n{json.dumps(entry, ensure_ascii=False)}"
    yield "]"


def _images(lines: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        width, height = line["image_size"]
        yield {
            "id": number,
            "file_name": line["image"],
            "id_in_source": line["id"],
            "width": width,
            "height": height,
        }


def _categories(categories: dict[str, int]) -> Iterator[dict[str, Any]]:
    # A generator, because the categories are known when the annotations have been written.
    for name, id_ in categories.items():
        yield {"id": id_, "name": name}


def _annotations(
    lines: Iterator[dict[str, Any]], task_name: str, categories: dict[str, int]
) -> Iterator[dict[str, Any]]:
    ids = count(1)
    for image_id, line in enumerate(lines, 1):
        for item in line["results"][task_name].get("items", []):
            label = item.get("label", item.get("text", ""))
            category = categories.setdefault(label, len(categories) + 1)
            yield {"id": next(ids), "image_id": image_id, "category_id": category, "iscrowd": 0, **_shape(item)}


def _shape(item: dict[str, Any]) -> dict[str, Any]:
    polygons = [[number for point in polygon for number in point] for polygon in item.get("polygons", [])]
    if "quad" in item:
        polygons = [item["quad"]]
    if "box" in item:
        left, top, right, bottom = item["box"]
    else:
        across = [number for polygon in polygons for number in polygon[0::2]] or [0.0]
        down = [number for polygon in polygons for number in polygon[1::2]] or [0.0]
        left, top, right, bottom = min(across), min(down), max(across), max(down)
    width, height = right - left, bottom - top
    area = sum(map(_area, polygons)) if polygons else width * height
    shape = {"bbox": [left, top, width, height], "area": area, "segmentation": polygons}
    return {**shape, "score": item["score"]} if "score" in item else shape


def _area(polygon: list[float]) -> float:
    points = list(zip(polygon[0::2], polygon[1::2], strict=True))
    following = [*points[1:], *points[:1]]
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(points, following, strict=True))) / 2
