"""The request that each task method of the clients sends, and the type of its result.

`Client` and `AsyncClient` have a method for each function here, with the same arguments.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import numpy.typing as npt

from florence2 import v1
from florence2._arguments import check_text, check_texts
from florence2.errors import InvalidArgumentError, require_type, wrong_type
from florence2.results import Detections, Result, Segmentation, Text, TextRegions
from florence2.tasks import AnswerForm, task_of_prompt

Region: TypeAlias = Sequence[float] | npt.NDArray[Any]
"""A bounding box x_min, y_min, x_max, y_max in pixels of the image as displayed: any sequence of four numbers, e.g. one
of `Detections.boxes`."""

_SIDES = ("x_min", "y_min", "x_max", "y_max")

Phrases: TypeAlias = str | Sequence[str]
"""A text, or a sequence of phrases."""

CaptionDetail: TypeAlias = Literal["brief", "detailed", "paragraph"]

ResultT = TypeVar("ResultT", bound=Result)


@dataclass(frozen=True)
class TypedRequest(Generic[ResultT]):
    """A request, and the type of the result that its task has."""

    request: v1.TaskRequest
    result_type: type[ResultT]


def caption(detail: CaptionDetail) -> TypedRequest[Text]:
    """Request a caption."""
    match detail:
        case "brief":
            request = v1.TaskRequest(caption=v1.Caption())
        case "detailed":
            request = v1.TaskRequest(detailed_caption=v1.DetailedCaption())
        case "paragraph":
            request = v1.TaskRequest(more_detailed_caption=v1.MoreDetailedCaption())
        case _:
            require_type("detail", detail, str)
            raise InvalidArgumentError.of_field("detail", detail, '"brief", "detailed" or "paragraph"')
    return TypedRequest(request, Text)


def detect() -> TypedRequest[Detections]:
    """Request objects with category names."""
    return TypedRequest(v1.TaskRequest(object_detection=v1.ObjectDetection()), Detections)


def describe_regions() -> TypedRequest[Detections]:
    """Request regions with descriptions."""
    return TypedRequest(v1.TaskRequest(dense_region_caption=v1.DenseRegionCaption()), Detections)


def propose_regions() -> TypedRequest[Detections]:
    """Request regions without labels."""
    return TypedRequest(v1.TaskRequest(region_proposal=v1.RegionProposal()), Detections)


def ground(caption: Phrases) -> TypedRequest[Detections]:
    """Request the locations of phrases."""
    if isinstance(caption, str):
        task = v1.PhraseGrounding(caption=check_text("caption", caption, "phrase_grounding.caption"))
    else:
        task = v1.PhraseGrounding(phrases=_phrases("caption", caption, "phrase_grounding.phrases"))
    return TypedRequest(v1.TaskRequest(phrase_grounding=task), Detections)


def detect_open_vocabulary(query: Phrases) -> TypedRequest[Detections]:
    """Request objects by free descriptions."""
    if isinstance(query, str):
        task = v1.OpenVocabularyDetection(query=check_text("query", query, "open_vocabulary_detection.query"))
    else:
        task = v1.OpenVocabularyDetection(queries=_phrases("query", query, "open_vocabulary_detection.queries"))
    return TypedRequest(v1.TaskRequest(open_vocabulary_detection=task), Detections)


def segment(expression: str) -> TypedRequest[Segmentation]:
    """Request the outline of what an expression refers to."""
    words = check_text("expression", expression, "referring_expression_segmentation.expression")
    task = v1.ReferringExpressionSegmentation(expression=words)
    return TypedRequest(v1.TaskRequest(referring_expression_segmentation=task), Segmentation)


def segment_region(region: Region) -> TypedRequest[Segmentation]:
    """Request the outline of the object in a region."""
    task = v1.RegionToSegmentation(region=_bounding_box(region, "region_to_segmentation.region"))
    return TypedRequest(v1.TaskRequest(region_to_segmentation=task), Segmentation)


def classify_region(region: Region) -> TypedRequest[Text]:
    """Request the category of the object in a region."""
    task = v1.RegionToCategory(region=_bounding_box(region, "region_to_category.region"))
    return TypedRequest(v1.TaskRequest(region_to_category=task), Text)


def describe_region(region: Region) -> TypedRequest[Text]:
    """Request the description of a region."""
    task = v1.RegionToDescription(region=_bounding_box(region, "region_to_description.region"))
    return TypedRequest(v1.TaskRequest(region_to_description=task), Text)


def read_region(region: Region) -> TypedRequest[Text]:
    """Request the text in a region."""
    task = v1.RegionToOcr(region=_bounding_box(region, "region_to_ocr.region"))
    return TypedRequest(v1.TaskRequest(region_to_ocr=task), Text)


def read_text() -> TypedRequest[Text]:
    """Request the text in the image."""
    return TypedRequest(v1.TaskRequest(ocr=v1.Ocr()), Text)


def read_text_regions() -> TypedRequest[TextRegions]:
    """Request the text in the image, with the outline of each piece."""
    return TypedRequest(v1.TaskRequest(ocr_with_region=v1.OcrWithRegion()), TextRegions)


def generate(prompt: str) -> TypedRequest[Text]:
    """Request the answer to a prompt."""
    check_text("prompt", prompt, "free_prompt.text")
    task = task_of_prompt(prompt)
    # The server takes a prompt that begins with an official token for that task.
    if task.answer not in (AnswerForm.TEXT, AnswerForm.REGION_TEXT):
        raise InvalidArgumentError.of_field(
            "free_prompt.text", prompt, f"a prompt that is answered with text; {task.token} has a method of its own"
        )
    return TypedRequest(v1.TaskRequest(free_prompt=v1.Prompt(text=prompt)), Text)


def _phrases(argument: str, phrases: Sequence[str], field: str) -> list[str]:
    checked = check_texts(argument, phrases, field)
    if not checked:
        raise InvalidArgumentError.of_field(field, phrases, "at least one phrase")
    return checked


def _bounding_box(region: Region, field: str) -> v1.BoundingBox:
    """Convert a region to its message. Only the server knows the image's size, and so checks that the box is inside."""
    accepted = "four numbers: x_min, y_min, x_max, y_max in pixels"
    try:
        coordinates = list(region)
    except TypeError:
        raise wrong_type("region", region, accepted) from None
    # float() would parse text, and iterating over bytes gives numbers.
    if any(isinstance(each, str | bytes | None) for each in (region, *coordinates)):
        raise wrong_type("region", region, accepted)
    if len(coordinates) != len(_SIDES):
        raise InvalidArgumentError.of_field(field, region, accepted)
    try:
        return v1.BoundingBox(**dict(zip(_SIDES, map(float, coordinates), strict=True)))
    except TypeError:
        raise wrong_type("region", region, accepted) from None
    except (OverflowError, ValueError):
        raise InvalidArgumentError.of_field(field, region, accepted) from None
