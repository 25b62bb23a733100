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
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import numpy as np
from google.protobuf.message import Message

from florence2.locations import ImageSizeLike, bins_to_pixels
from florence2.results import Detections, Float32Array, Result, Segmentation, Text, TextRegions
from florence2.scores import AnswerTokens, IntArray, Span, TokenScores
from florence2.tasks import AnswerForm, Task, task_named

_CONTROL_TOKENS = ("<s>", "</s>", "<pad>")
_LOCATION = re.compile("<loc_([0-9]{1,3})>")
# Nothing follows a repetition in these patterns, so none is given back piece by piece and scans are linear. Possessive
# ones would say so, but Python before 3.11.5 matches too much with them.
_LOCATION_RUN = re.compile("(?:<loc_[0-9]{1,3}>|<sep>|</?poly>)+")
_LOCATION_OR_SEPARATOR = re.compile(f"{_LOCATION.pattern}|<sep>|</?poly>")
# The inside of <poly>...</poly>, either of which may be missing.
_POLY = re.compile("<poly>((?:<loc_[0-9]{1,3}>|<sep>)*)")
_MARKUP = re.compile(
    "<loc_[0-9]+>|</?(?:od|ocr|cap|ncap|dcap|grounding|seg|region_cap|region_to_desciption|proposal|and)>"
)
_MARKUP_OR_LETTERS = re.compile(rf"{_MARKUP.pattern}|(?P<letters>[^\s<]+|<)")
# A shorter run of locations and separators outlines nothing; the limit is the processor's.
_LEAST_OUTLINE_TOKENS = 4

# The locations of a box, a quad or a polygon, as they stand in the text.
_Locations: TypeAlias = list[re.Match[str]]


class _Label(NamedTuple):
    words: str
    span: Span


class _Parsed(NamedTuple):
    """A result, and where its items stand in the text that was parsed."""

    result: Result
    locations: list[Span]
    labels: list[Span] | None = None


def decode(
    task: str | Message | Task, text: str, image_size: ImageSizeLike, token_scores: TokenScores | None = None
) -> Result:
    """The result that an answer stands for.

    Args:
        task: what was asked: an official token such as `"<OD>"`, the task's message, or a row of `TASKS`. An
            answer to anything else is text.
        text: the generated text, with its special tokens. Whatever cannot be read in it is left out.
        image_size: the image's extent in pixels, as displayed; coordinates are relative to it.
        token_scores: how probable the text's tokens were. With it the result has scores: how sure the model was,
            0 to 1, not calibrated (see `florence2.scores`).

    Returns:
        `Text`, `Detections`, `Segmentation` or `TextRegions`, with the coordinates in pixels.

    Raises:
        InvalidArgumentError: `image_size` is not an image's size, or `token_scores` are not of this text. The
            answer itself never raises.
    """
    row = task if isinstance(task, Task) else task_named(task)
    answer, origins = _without_control_tokens(text)
    parsed = _PARSERS[row.answer if row else AnswerForm.TEXT](answer, image_size)
    if token_scores is None:
        return parsed.result
    return _with_scores(parsed, AnswerTokens(token_scores, text, origins))


def _without_control_tokens(text: str) -> tuple[str, IntArray]:
    """The text without control tokens, and for each of its characters where it stood before."""
    origins = np.arange(len(text))
    for token in _CONTROL_TOKENS:
        kept = np.ones(len(text), bool)
        for occurrence in re.finditer(token, text):
            kept[slice(*occurrence.span())] = False
        text, origins = text.replace(token, ""), origins[kept]
    return text, origins


def _with_scores(parsed: _Parsed, tokens: AnswerTokens) -> Result:
    if isinstance(parsed.result, Text):
        return replace(parsed.result, score=tokens.score())
    scores, label_scores, location_scores = tokens.item_scores(parsed.labels, parsed.locations)
    if isinstance(parsed.result, Segmentation):
        return replace(parsed.result, scores=scores)
    return replace(parsed.result, scores=scores, label_scores=label_scores, location_scores=location_scores)


def _parse_text(text: str, _: ImageSizeLike) -> _Parsed:
    return _Parsed(Text(text.strip()), [])


def _parse_region_text(text: str, _: ImageSizeLike) -> _Parsed:
    return _Parsed(Text(_LOCATION.sub("", text).strip()), [])


def _parse_boxes(text: str, image_size: ImageSizeLike) -> _Parsed:
    found = [box for run in _LOCATION_RUN.finditer(text) for box in _groups(run, 4)]
    boxes = _pixels(found, image_size).reshape(-1, 4)
    return _Parsed(Detections(boxes, [""] * len(found)), [_span(box) for box in found])


def _parse_labeled_boxes(text: str, image_size: ImageSizeLike) -> _Parsed:
    found = [(label, box) for label, run in _phrases(text) for box in _groups(run, 4)]
    boxes = _pixels([box for _, box in found], image_size).reshape(-1, 4)
    result = Detections(boxes, [label.words for label, _ in found])
    return _Parsed(result, [_span(box) for _, box in found], [label.span for label, _ in found])


def _parse_quads(text: str, image_size: ImageSizeLike) -> _Parsed:
    # A piece of text has one quad: what is left of longer runs belongs to nothing.
    found = [(label, quad) for label, run in _phrases(text) for quad in _groups(run, 8)[:1]]
    quads = _pixels([quad for _, quad in found], image_size).reshape(-1, 8)
    result = TextRegions(quads, [label.words for label, _ in found])
    return _Parsed(result, [_span(quad) for _, quad in found], [label.span for label, _ in found])


def _parse_polygons(text: str, image_size: ImageSizeLike) -> _Parsed:
    outlines = [outline for run in _LOCATION_RUN.finditer(text) for outline in _outlines(run)]
    polygons = [[_pixels([polygon], image_size) for polygon in outline] for outline in outlines]
    return _Parsed(Segmentation(polygons, [""] * len(outlines)), [_span(*outline) for outline in outlines])


def _parse_labeled_boxes_or_polygons(text: str, image_size: ImageSizeLike) -> _Parsed:
    if "<poly>" not in text:
        return _parse_labeled_boxes(text, image_size)
    boxes: list[Float32Array] = []
    polygons: list[list[Float32Array]] = []
    labels: list[_Label] = []
    locations: list[Span] = []
    for label, run in _phrases(text):
        outlines = _outlines(run) if "<poly>" in run.group() else []
        whole = [] if "<poly>" in run.group() else _groups(run, 4)
        outlined = [[_pixels([polygon], image_size) for polygon in outline] for outline in outlines]
        boxes += [_enclosing_box(outline) for outline in outlined]
        boxes += [_pixels([box], image_size).reshape(4) for box in whole]
        polygons += outlined + [[] for _ in whole]
        labels += [label] * (len(outlines) + len(whole))
        locations += [_span(*outline) for outline in outlines] + [_span(box) for box in whole]
    words = [label.words for label in labels]
    result = Detections(np.array(boxes), words, polygons=polygons if any(polygons) else None)
    return _Parsed(result, locations, [label.span for label in labels])


def _phrases(text: str) -> Iterator[tuple[_Label, re.Match[str]]]:
    """Every label with the run of locations and separators after it. Labels may be blank, but not missing."""
    end = 0
    for run in _LOCATION_RUN.finditer(text):
        label = _label(text, end, run.start())
        end = run.end()
        if label:
            yield label, run


def _label(text: str, start: int, end: int) -> _Label | None:
    """The label in a part of the text; None where there is nothing but mark-up."""
    words = _MARKUP.sub("", text[start:end])
    if not words:
        return None
    letters = [part for part in _MARKUP_OR_LETTERS.finditer(text, start, end) if part["letters"]]
    span = (letters[0].start(), letters[-1].end()) if letters else (start, end)
    return _Label(words.strip(), span)


def _groups(run: re.Match[str], size: int) -> list[_Locations]:
    """The locations of a run, `size` at a time. What is too few before a separator or the end is dropped."""
    pieces = _pieces(run.string, run.span())
    return [piece[start : start + size] for piece in pieces for start in range(0, len(piece) - size + 1, size)]


def _outlines(run: re.Match[str]) -> list[list[_Locations]]:
    """The outlines in a run, each of one polygon or more, each of whole vertices, one or more."""
    if run.group().count("<") < _LEAST_OUTLINE_TOKENS:
        return []
    # With <poly> in the run, locations outside <poly>...</poly> are no outline.
    insides = [poly.span(1) for poly in _POLY.finditer(run.string, *run.span())] or [run.span()]
    outlines = [_pieces(run.string, inside) for inside in insides]
    whole = [[piece[: len(piece) // 2 * 2] for piece in outline if len(piece) > 1] for outline in outlines]
    return [outline for outline in whole if outline]


def _pieces(text: str, span: Span) -> list[_Locations]:
    """The locations of a run or a part of one, between separators."""
    pieces: list[_Locations] = [[]]
    for token in _LOCATION_OR_SEPARATOR.finditer(text, *span):
        if token[1] is None:
            pieces.append([])
        else:
            pieces[-1].append(token)
    return pieces


def _pixels(groups: list[_Locations], image_size: ImageSizeLike) -> Float32Array:
    """The locations' pixels, x and y, shape (M, 2)."""
    return bins_to_pixels([[int(location[1]) for location in group] for group in groups], image_size)


def _span(*groups: _Locations) -> Span:
    """From the first location to the last."""
    return groups[0][0].start(), groups[-1][-1].end()


def _enclosing_box(outline: list[Float32Array]) -> Float32Array:
    vertices = np.concatenate(outline)
    return np.concatenate([vertices.min(axis=0), vertices.max(axis=0)])


_Parser: TypeAlias = Callable[[str, ImageSizeLike], _Parsed]

_PARSERS: dict[AnswerForm, _Parser] = {
    AnswerForm.TEXT: _parse_text,
    AnswerForm.REGION_TEXT: _parse_region_text,
    AnswerForm.LABELED_BOXES: _parse_labeled_boxes,
    AnswerForm.BOXES: _parse_boxes,
    AnswerForm.POLYGONS: _parse_polygons,
    AnswerForm.LABELED_BOXES_OR_POLYGONS: _parse_labeled_boxes_or_polygons,
    AnswerForm.QUADS: _parse_quads,
}
