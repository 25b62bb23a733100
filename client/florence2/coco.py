"""Export of results in the COCO format, for pycocotools and for annotation tools.

    from florence2.coco import coco_dataset

    found = {path: client.detect(path) for path in paths}
    Path("found.json").write_text(json.dumps(coco_dataset(found.items())))

Boxes are `[x, y, width, height]` in pixels; the corners of inverted boxes are put in order. Outlines are
polygons; an object without one has the corners of its box. Text regions have the category `text`, and their annotations
also have the text itself, as `text`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np

from florence2.errors import InvalidArgumentError, wrong_type
from florence2.plain_data import number, numbers
from florence2.result_items import Float32Array
from florence2.results import Detections, Segmentation, TextRegions

Located: TypeAlias = Detections | Segmentation | TextRegions
"""A result whose items have locations."""

_TEXT: Final = "text"


def coco_dataset(images: Iterable[tuple[object, Located]], categories: Sequence[str] | None = None) -> dict[str, Any]:
    """A COCO dataset of images and what was found in them, with `images`, `categories` and `annotations`.

    Ids count from 1. Annotations have a `score` if it is known.

    Args:
        images: file name or path of each image, and its result.
        categories: the categories in order; objects with other labels are left out. None: all labels, sorted.

    Raises:
        TypeError: a result has no locations.
        InvalidArgumentError: the `image_size` of a result is unknown.
    """
    found = [(str(name), result) for name, result in images]
    labels = {label for _, result in found for label in category_names(_checked(result))}
    names = sorted(labels) if categories is None else list(categories)
    ids = {name: number for number, name in enumerate(names, start=1)}
    results = enumerate((result for _, result in found), start=1)
    found_items = [each for image_id, result in results for each in annotations(image_id, result, ids)]
    return {
        "images": [_image(image_id, *each) for image_id, each in enumerate(found, start=1)],
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
        "annotations": [{"id": number, **annotation} for number, annotation in enumerate(found_items, start=1)],
    }


def coco_predictions(images: Iterable[tuple[int, Located]], categories: Mapping[str, int]) -> list[dict[str, Any]]:
    """Predictions about the images of an existing dataset, for `COCO.loadRes`.

    Args:
        images: id of each image in the dataset, and its result.
        categories: the id of each category in the dataset; objects with other labels are left out.

    Raises:
        TypeError: a result has no locations.
        InvalidArgumentError: scores are unknown, which an evaluation needs.
    """
    predictions: list[dict[str, Any]] = []
    for image_id, result in images:
        if _checked(result).scores is None and len(result) > 0:
            raise InvalidArgumentError.of_field("images", image_id, "a result with known scores")
        predictions += annotations(image_id, result, categories)
    return predictions


def _checked(result: Located) -> Located:
    if not isinstance(result, Located):
        raise wrong_type("images", result, "results whose items have locations")
    return result


def _image(image_id: int, name: str, result: Located) -> dict[str, Any]:
    if result.image_size is None:
        raise InvalidArgumentError.of_field("images", name, "a result that knows its image's size")
    width, height = result.image_size
    return {"id": image_id, "file_name": name, "width": width, "height": height}


def category_names(result: Located) -> list[str]:
    """The name of each item's category."""
    return [_TEXT] * len(result) if isinstance(result, TextRegions) else result.labels


def annotations(image_id: int, result: Located, ids: Mapping[str, int]) -> Iterable[dict[str, Any]]:
    """The annotations of an image, without their own ids.

    Args:
        image_id: the image's id.
        result: what was found in it.
        ids: the id of each category; items of others are left out.
    """
    for index, (category, outline) in enumerate(zip(category_names(result), result.outlines(), strict=True)):
        # A polygon of two vertices would be read as a box.
        polygons = [polygon for polygon in outline if len(polygon) > 2 and np.isfinite(polygon).all()]
        if category in ids and polygons:
            annotation = {"image_id": image_id, "category_id": ids[category], "iscrowd": 0, **_shape(polygons)}
            if (score := number(None if result.scores is None else result.scores[index])) is not None:
                annotation["score"] = score
            if isinstance(result, TextRegions):
                annotation["text"] = result.labels[index]
            yield annotation


def _shape(polygons: list[Float32Array]) -> dict[str, Any]:
    vertices = np.concatenate(polygons)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    return {
        "bbox": numbers(np.concatenate([low, high - low])),
        "area": number(sum(_area(polygon.astype(np.float64)) for polygon in polygons)),
        "segmentation": [numbers(polygon.reshape(-1)) for polygon in polygons],
    }


def _area(polygon: Any) -> float:
    """The area of a polygon in square pixels, by the shoelace formula."""
    x, y = polygon[:, 0], polygon[:, 1]
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
