"""Conversion of results to and from protobuf messages.

What results call a score is a confidence in a message, and what they call a likelihood is a score. Both are unset if
unknown. Each object has an outline, which is empty if the result has no polygons.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from florence2 import v1
from florence2.errors import ServerError
from florence2.locations import known_size
from florence2.result_items import score_at
from florence2.results import Detections, Float32Array, ImageSize, Result, Segmentation, Text, TextRegions

ResultMessage: TypeAlias = v1.Text | v1.Detections | v1.Segmentation | v1.TextRegions


def to_message(result: Result) -> ResultMessage:
    """The message of the same name in `florence2.v1`."""
    match result:
        case Text():
            return v1.Text(text=result.text, score=result.likelihood, confidence=result.score)
        case Detections():
            return v1.Detections(detections=_to_detections(result))
        case Segmentation():
            return v1.Segmentation(segments=_to_segments(result))
        case TextRegions():
            return v1.TextRegions(text_regions=_to_text_regions(result))


def from_message(message: ResultMessage, image_size: ImageSize | None = None) -> Result:
    """The result of the same name in `florence2.results`.

    Scores are None if any item lacks them, or if there are no items.

    Args:
        message: the message.
        image_size: width and height of its image, in pixels; None if unknown.

    Raises:
        ServerError: a quad does not have four corners.
    """
    match message:
        case v1.Text():
            result: Result = Text(
                message.text,
                score=message.confidence if message.HasField("confidence") else None,
                likelihood=message.score if message.HasField("score") else None,
            )
        case v1.Detections():
            result = _from_detections(message.detections)
        case v1.Segmentation():
            result = _from_segments(message.segments)
        case v1.TextRegions():
            result = _from_text_regions(message.text_regions)
    return replace(result, image_size=image_size)


def set_result(response: v1.TaskResponse, result: Result) -> None:
    """Set the response's oneof `result`."""
    message = to_message(result)
    match message:
        case v1.Text():
            response.text_result.CopyFrom(message)
        case v1.Detections():
            response.detections.CopyFrom(message)
        case v1.Segmentation():
            response.segmentation.CopyFrom(message)
        case v1.TextRegions():
            response.text_regions.CopyFrom(message)


def result_of(response: v1.TaskResponse) -> Result | None:
    """The decoded result of a response; None if the request was raw.

    Raises:
        ServerError: a quad does not have four corners.
    """
    name = response.WhichOneof("result")
    return None if name is None else from_message(getattr(response, name), known_size(response.image_size))


def _to_detections(result: Detections) -> list[v1.Detection]:
    return [
        v1.Detection(
            label=item.label,
            bounding_box=_to_box(item.box),
            polygons=_to_polygons(item.polygons),
            score=item.likelihood,
            label_score=score_at(result.label_likelihoods, index),
            location_score=score_at(result.location_likelihoods, index),
            confidence=item.score,
            label_confidence=item.label_score,
            location_confidence=item.location_score,
        )
        for index, item in enumerate(result)
    ]


def _to_segments(result: Segmentation) -> list[v1.Segment]:
    return [
        v1.Segment(
            label=item.label,
            polygons=_to_polygons(item.polygons),
            score=item.likelihood,
            confidence=item.score,
        )
        for item in result
    ]


def _to_text_regions(result: TextRegions) -> list[v1.TextRegion]:
    return [
        v1.TextRegion(
            text=item.label,
            quad=v1.Quad(corners=_to_points(item.quad)),
            score=item.likelihood,
            label_score=score_at(result.label_likelihoods, index),
            location_score=score_at(result.location_likelihoods, index),
            confidence=item.score,
            label_confidence=item.label_score,
            location_confidence=item.location_score,
        )
        for index, item in enumerate(result)
    ]


def _to_box(box: Float32Array) -> v1.BoundingBox:
    x_min, y_min, x_max, y_max = box.tolist()
    return v1.BoundingBox(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max)


def _to_polygons(polygons: Iterable[Float32Array]) -> list[v1.Polygon]:
    return [v1.Polygon(vertices=_to_points(polygon)) for polygon in polygons]


def _to_points(coordinates: Float32Array) -> list[v1.Point]:
    return [v1.Point(x=x, y=y) for x, y in coordinates.reshape(-1, 2).tolist()]


def _from_detections(found: Sequence[v1.Detection]) -> Detections:
    corners = [d.bounding_box for d in found]
    boxes = np.array([(c.x_min, c.y_min, c.x_max, c.y_max) for c in corners], np.float32)
    polygons = [_from_polygons(d.polygons) for d in found]
    return Detections(
        boxes,
        [d.label for d in found],
        likelihoods=_from_scores(found, "score"),
        polygons=polygons if any(polygons) else None,
        label_likelihoods=_from_scores(found, "label_score"),
        location_likelihoods=_from_scores(found, "location_score"),
        scores=_from_scores(found, "confidence"),
        label_scores=_from_scores(found, "label_confidence"),
        location_scores=_from_scores(found, "location_confidence"),
    )


def _from_segments(segments: Sequence[v1.Segment]) -> Segmentation:
    return Segmentation(
        [_from_polygons(s.polygons) for s in segments],
        [s.label for s in segments],
        likelihoods=_from_scores(segments, "score"),
        scores=_from_scores(segments, "confidence"),
    )


def _from_text_regions(regions: Sequence[v1.TextRegion]) -> TextRegions:
    return TextRegions(
        np.array([_from_quad(r.quad) for r in regions]),
        [r.text for r in regions],
        likelihoods=_from_scores(regions, "score"),
        label_likelihoods=_from_scores(regions, "label_score"),
        location_likelihoods=_from_scores(regions, "location_score"),
        scores=_from_scores(regions, "confidence"),
        label_scores=_from_scores(regions, "label_confidence"),
        location_scores=_from_scores(regions, "location_confidence"),
    )


def _from_scores(items: Sequence[v1.Detection | v1.Segment | v1.TextRegion], field: str) -> Float32Array | None:
    if not items or not all(item.HasField(field) for item in items):
        return None
    return np.array([getattr(item, field) for item in items], np.float32)


def _from_polygons(polygons: Iterable[v1.Polygon]) -> list[Float32Array]:
    return [_from_points(polygon.vertices) for polygon in polygons]


def _from_quad(quad: v1.Quad) -> Float32Array:
    if len(quad.corners) != 4:
        raise ServerError(f"text_regions.quad.corners: got {len(quad.corners)} corners, expected 4")
    return _from_points(quad.corners).reshape(8)


def _from_points(points: Iterable[v1.Point]) -> Float32Array:
    return np.array([(point.x, point.y) for point in points], np.float32).reshape(-1, 2)
