r"""From the text that the model generates to a result. Linear in the text; no answer raises.

For whole answers, labels and the integer parts of coordinates are those of Hugging Face's
`Florence2Processor.post_process_generation`. What differs on purpose:

1. Control tokens (`<s>`, `</s>`, `<pad>`) go everywhere, also from pure text; the processor leaves `<pad>`
   there.
2. Labels keep their Unicode; the processor drops what is not ASCII from the labels of boxes.
3. Labels are the whole text between locations. The processor's lose what stands before a line break (of a
   piece of OCR text; any other phrase with a line break is lost altogether) and, except in OCR, before a `<`;
   and they begin with the rest of a token, as in `loc_7>dog`, where locations that make no whole box, polygon
   or quad come before. Tokens of the model's own mark-up (`<od>`, `<and>`) are dropped from them.
4. A location is `<loc_0>` to `<loc_999>`. Other numbers are dropped from labels and part the locations around
   them; the processor takes them for coordinates outside the image.
5. Region to category, description and text: locations that the answer echoes (`car<loc_52><loc_332>…`) are
   dropped.
6. Open-vocabulary detection: an object is boxes or, where it has `<poly>`, polygons. The processor reads
   every object as polygons where any has `<poly>`, and returns the two apart.
7. Polygons without a whole vertex are dropped, as is an outline that has no others; the processor returns
   empty lists. An outline that only `<poly>` opens or only `</poly>` closes counts, as the one that an answer
   cut at its length limit ends with; for the processor only an open one does, and only where none is closed.
8. Objects without any label, where a task asks for labels, are dropped. The processor means to do that, but
   gives `loc_1>` as the label of five locations and more, and takes the locations of a quad without text for
   the next text.

No phrase is banned from phrase grounding: the published checkpoints' processor configuration has an empty
list of `banned_grounding_tokens`. The authors' first code dropped pronouns and the like ("it", "they", "the
image").
"""

import re
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
from google.protobuf.message import Message

from florence2.locations import ImageSizeLike, bins_to_pixels
from florence2.results import Detections, Float32Array, Result, Segmentation, Text, TextRegions
from florence2.tasks import AnswerForm, Task, task_named

_CONTROL_TOKENS = ("<s>", "</s>", "<pad>")
_LOCATION = re.compile("<loc_([0-9]{1,3})>")
# Possessive (++): a run is never given back piece by piece, so the scan is linear.
_LOCATION_RUN = re.compile("(?:<loc_[0-9]{1,3}>|<sep>|</?poly>)++")
_SEPARATOR = re.compile("<sep>|</?poly>")
_MARKUP = re.compile(
    "<loc_[0-9]+>|</?(?:od|ocr|cap|ncap|dcap|grounding|seg|region_cap|region_to_desciption|proposal|and)>"
)
# A shorter run of locations and separators outlines nothing; the limit is the processor's.
_LEAST_OUTLINE_TOKENS = 4


def decode(task: str | Message | Task, text: str, image_size: ImageSizeLike) -> Result:
    """The result that an answer stands for.

    Args:
        task: what was asked: an official token such as `"<OD>"`, the task's message, or a row of `TASKS`. An
            answer to anything else is text.
        text: the generated text, with its special tokens. Whatever cannot be read in it is left out.
        image_size: the image's extent in pixels, as displayed; coordinates are relative to it.

    Returns:
        `Text`, `Detections`, `Segmentation` or `TextRegions`, with the coordinates in pixels.

    Raises:
        InvalidArgumentError: `image_size` is not an image's size. The answer itself never raises.
    """
    row = task if isinstance(task, Task) else task_named(task)
    for token in _CONTROL_TOKENS:
        text = text.replace(token, "")
    return _PARSERS[row.answer if row else AnswerForm.TEXT](text, image_size)


def _parse_text(text: str, _: ImageSizeLike) -> Text:
    return Text(text.strip())


def _parse_region_text(text: str, _: ImageSizeLike) -> Text:
    return Text(_LOCATION.sub("", text).strip())


def _parse_boxes(text: str, image_size: ImageSizeLike) -> Detections:
    bins = [box for run in _LOCATION_RUN.findall(text) for box in _groups(run, 4)]
    return Detections(bins_to_pixels(bins, image_size).reshape(-1, 4), [""] * len(bins))


def _parse_labeled_boxes(text: str, image_size: ImageSizeLike) -> Detections:
    found = [(label, box) for label, run in _phrases(text) for box in _groups(run, 4)]
    boxes = bins_to_pixels([box for _, box in found], image_size).reshape(-1, 4)
    return Detections(boxes, [label for label, _ in found])


def _parse_quads(text: str, image_size: ImageSizeLike) -> TextRegions:
    # A piece of text has one quad: what is left of longer runs belongs to nothing.
    found = [(label, quad) for label, run in _phrases(text) for quad in _groups(run, 8)[:1]]
    quads = bins_to_pixels([quad for _, quad in found], image_size).reshape(-1, 8)
    return TextRegions(quads, [label for label, _ in found])


def _parse_polygons(text: str, image_size: ImageSizeLike) -> Segmentation:
    runs = _LOCATION_RUN.findall(text)
    outlines = [outline for run in runs for outline in _outlines(run, image_size)]
    return Segmentation(outlines, [""] * len(outlines))


def _parse_labeled_boxes_or_polygons(text: str, image_size: ImageSizeLike) -> Detections:
    if "<poly>" not in text:
        return _parse_labeled_boxes(text, image_size)
    boxes: list[Float32Array] = []
    labels: list[str] = []
    polygons: list[list[Float32Array]] = []
    for label, run in _phrases(text):
        outlines = _outlines(run, image_size) if "<poly>" in run else []
        whole = [] if "<poly>" in run else _groups(run, 4)
        boxes += [_enclosing_box(outline) for outline in outlines]
        boxes += [bins_to_pixels(box, image_size).reshape(4) for box in whole]
        polygons += outlines + [[] for _ in whole]
        labels += [label] * (len(outlines) + len(whole))
    return Detections(np.array(boxes), labels, polygons=polygons if any(polygons) else None)


def _phrases(text: str) -> Iterator[tuple[str, str]]:
    """Every label with the run of locations and separators after it. Labels may be blank, but not missing."""
    end = 0
    for run in _LOCATION_RUN.finditer(text):
        words = _MARKUP.sub("", text[end : run.start()])
        end = run.end()
        if words:
            yield words.strip(), run.group()


def _groups(run: str, size: int) -> list[list[int]]:
    """The bins of a run, `size` at a time. What is too few before a separator or the end is dropped."""
    groups = []
    for piece in _SEPARATOR.split(run):
        bins = _bins(piece)
        groups += [bins[start : start + size] for start in range(0, len(bins) - size + 1, size)]
    return groups


def _outlines(run: str, image_size: ImageSizeLike) -> list[list[Float32Array]]:
    """The outlines in a run, each a list of polygons of shape (M, 2), M at least 1."""
    if run.count("<") < _LEAST_OUTLINE_TOKENS:
        return []
    # With <poly> in the run, locations outside <poly>...</poly> are no outline.
    pieces = [piece.split("</poly>")[0] for piece in run.split("<poly>")[1:]] if "<poly>" in run else [run]
    outlines = [[_bins(part) for part in _SEPARATOR.split(piece)] for piece in pieces]
    whole = [[bins[: len(bins) // 2 * 2] for bins in outline if len(bins) > 1] for outline in outlines]
    return [[bins_to_pixels(bins, image_size) for bins in outline] for outline in whole if outline]


def _enclosing_box(outline: list[Float32Array]) -> Float32Array:
    vertices = np.concatenate(outline)
    return np.concatenate([vertices.min(axis=0), vertices.max(axis=0)])


def _bins(run: str) -> list[int]:
    return [int(number) for number in _LOCATION.findall(run)]


_Parser: TypeAlias = Callable[[str, ImageSizeLike], Result]

_PARSERS: dict[AnswerForm, _Parser] = {
    AnswerForm.TEXT: _parse_text,
    AnswerForm.REGION_TEXT: _parse_region_text,
    AnswerForm.LABELED_BOXES: _parse_labeled_boxes,
    AnswerForm.BOXES: _parse_boxes,
    AnswerForm.POLYGONS: _parse_polygons,
    AnswerForm.LABELED_BOXES_OR_POLYGONS: _parse_labeled_boxes_or_polygons,
    AnswerForm.QUADS: _parse_quads,
}
