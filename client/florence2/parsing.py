r"""Parses generated text into results, in linear time. No text raises an error.

For complete answers, labels and the integer parts of coordinates are those of Hugging Face's
`Florence2Processor.post_process_generation`. Intended differences:

1. Control tokens (`<s>`, `</s>`, `<pad>`) are removed everywhere, also from pure text, in which the processor leaves
   `<pad>`.
2. Labels keep their Unicode; the processor drops non-ASCII characters from the labels of boxes.
3. A label is the entire text between locations. The processor's labels lose the text before a line break (of a piece of
   OCR text; any other phrase with a line break is lost completely) and, except in OCR, before a `<`. After locations
   that form no complete box, polygon or quad, they begin with the rest of a token, as in `loc_7>dog`. Tokens of the
   model's markup (`<od>`, `<and>`) are dropped from labels.
4. A location is `<loc_0>` to `<loc_999>`. Other numbers are dropped from labels and separate the locations around them;
   the processor treats them as coordinates outside the image.
5. Region to category, description and text: locations that the answer repeats (`car<loc_52><loc_332>…`) are dropped.
6. Open-vocabulary detection: an object has boxes or, if it has `<poly>`, polygons. The processor reads every object as
   polygons if any of them has `<poly>`, and returns boxes and polygons separately.
7. Polygons without a complete vertex are dropped, and outlines that have only such polygons; the processor returns
   empty lists. An outline counts even if its `<poly>` or its `</poly>` is missing, as at the end of a truncated answer;
   the processor accepts only a missing `</poly>`, and only if the answer has no `</poly>` at all.
8. Objects without a label are dropped if the task's answers have labels. The processor intends to do the same, but
   gives runs of five or more locations the label `loc_1>`, and assigns the locations of a quad without text to the next
   text.

No phrase is excluded from phrase grounding: the list `banned_grounding_tokens` is empty in the processor configuration
of the published checkpoints. The authors' original code dropped pronouns and the like ("it", "they", "the image").
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import numpy as np
from google.protobuf.message import Message

from florence2.locations import ImageSizeLike, bins_to_pixels, known_size
from florence2.results import Detections, Float32Array, Result, Segmentation, Text, TextRegions
from florence2.scores import AnswerTokens, IntArray, Span, TokenScores
from florence2.tasks import AnswerForm, Task, task_named

_CONTROL_TOKENS = ("<s>", "</s>", "<pad>")
_LOCATION = re.compile("<loc_([0-9]{1,3})>")
# Nothing follows a repetition in these patterns, so they never backtrack and scans are linear. Possessive quantifiers
# would make that explicit, but match too much in Python before 3.11.5.
_LOCATION_RUN = re.compile("(?:<loc_[0-9]{1,3}>|<sep>|</?poly>)+")
_LOCATION_OR_SEPARATOR = re.compile(f"{_LOCATION.pattern}|<sep>|</?poly>")
# The inside of <poly>...</poly>; either tag may be missing.
_POLY = re.compile("<poly>((?:<loc_[0-9]{1,3}>|<sep>)*)")
_MARKUP = re.compile(
    "<loc_[0-9]+>|</?(?:od|ocr|cap|ncap|dcap|grounding|seg|region_cap|region_to_desciption|proposal|and)>"
)
_MARKUP_OR_LETTERS = re.compile(rf"{_MARKUP.pattern}|(?P<letters>[^\s<]+|<)")
# A shorter run of locations and separators is not an outline; the limit is the processor's.
_LEAST_OUTLINE_TOKENS = 4

# The matches of a box's, quad's or polygon's locations in the text.
_Locations: TypeAlias = list[re.Match[str]]


class _Label(NamedTuple):
    text: str
    span: Span


class _Parsed(NamedTuple):
    """A result, and the spans of its items in the parsed text."""

    result: Result
    locations: list[Span]
    labels: list[Span] | None = None


def decode(
    task: str | Message | Task, text: str, image_size: ImageSizeLike, token_scores: TokenScores | None = None
) -> Result:
    """Parse generated text into the result of its task.

    Args:
        task: an official token such as `"<OD>"`, the task's message, or an element of `TASKS`. For anything else, the
            result is text.
        text: the generated text, including special tokens. Parts that cannot be parsed are left out.
        image_size: width and height of the image as displayed, in pixels; coordinates are relative to it.
        token_scores: the log-probabilities and masses of the text's tokens. If given, the result has likelihoods, and
            scores if the masses are known; `florence2.scores` says what they are.

    Returns:
        `Text`, `Detections`, `Segmentation` or `TextRegions`, with coordinates in pixels.

    Raises:
        InvalidArgumentError: `image_size` is not a valid size, or `token_scores` do not belong to this text. No text
            raises an error.
    """
    known = task if isinstance(task, Task) else task_named(task)
    answer, origins = _without_control_tokens(text)
    parsed = _PARSERS[known.answer](answer, image_size)
    return _with_scores(_sized(parsed, image_size), token_scores, text, origins)


class SettledItems(NamedTuple):
    """The first items of an answer that is still being generated; further text cannot change them."""

    result: Result
    """The items, in order."""
    resume: int
    """The offset in the text from which the next items can be decoded without the text before it."""
    passed: int
    """How many of the items lie before that offset."""


def decode_settled(
    task: Task, text: str, image_size: ImageSizeLike, token_scores: TokenScores | None = None
) -> SettledItems:
    """Decode the beginning of an answer, without items that further text may change.

    Args:
        task: a task whose answers have items.
        text: the beginning of the generated text, or the part of it from an earlier `resume` on.
        image_size: as for `decode`.
        token_scores: as for `decode`, of this part of the text.

    Raises:
        InvalidArgumentError: as for `decode`.
    """
    answer, origins = _without_control_tokens(text)
    runs = list(_LOCATION_RUN.finditer(answer))
    parsed = _PARSERS[task.answer](answer[: _settled_length(task.answer, answer, runs)], image_size)
    if task.answer is AnswerForm.BOXES:
        resume = parsed.locations[-1][1] if parsed.locations else 0
    else:
        resume = max((run.end() for run in runs if _is_over(run)), default=0)
    passed = sum(start < resume for start, _ in parsed.locations)
    result = _with_scores(_sized(parsed, image_size), token_scores, text, origins)
    return SettledItems(result, int(origins[resume - 1]) + 1 if resume else 0, passed)


def _settled_length(form: AnswerForm, answer: str, runs: list[re.Match[str]]) -> int:
    """The length of the part of a growing answer whose complete items are certain."""
    if form not in (AnswerForm.POLYGONS, AnswerForm.LABELED_BOXES_OR_POLYGONS) or not runs or _is_over(runs[-1]):
        return len(answer)
    # If the run has <poly>, now or later, locations outside <poly>...</poly> belong to no item.
    start, run = runs[-1].start(), runs[-1].group()
    closed = run.rfind("</poly>")
    return start + closed + len("</poly>") if "<poly>" in run[: max(closed, 0)] else start


def _is_over(run: re.Match[str]) -> bool:
    """Whether no further text can extend a run. After a "<" it is uncertain, because that may become a location."""
    return run.string[run.end() : run.end() + 1] not in ("", "<")


def _without_control_tokens(text: str) -> tuple[str, IntArray]:
    """The text without control tokens, and the original offset of each remaining character."""
    origins = np.arange(len(text))
    for token in _CONTROL_TOKENS:
        kept = np.ones(len(text), bool)
        for occurrence in re.finditer(token, text):
            kept[slice(*occurrence.span())] = False
        text, origins = text.replace(token, ""), origins[kept]
    return text, origins


def _sized(parsed: _Parsed, image_size: ImageSizeLike) -> _Parsed:
    """The same, with the image's size in the result."""
    return parsed._replace(result=replace(parsed.result, image_size=known_size(image_size)))


def _with_scores(parsed: _Parsed, token_scores: TokenScores | None, text: str, origins: IntArray) -> Result:
    if token_scores is None:
        return parsed.result
    tokens = AnswerTokens(token_scores, text, origins)
    if isinstance(parsed.result, Text):
        return replace(parsed.result, score=tokens.score(), likelihood=tokens.likelihood())
    found = tokens.item_scores(parsed.labels, parsed.locations)
    if isinstance(parsed.result, Segmentation):
        return replace(parsed.result, scores=found.scores, likelihoods=found.likelihoods)
    return replace(parsed.result, **found._asdict())


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
    result = Detections(boxes, [label.text for label, _ in found])
    return _Parsed(result, [_span(box) for _, box in found], [label.span for label, _ in found])


def _parse_quads(text: str, image_size: ImageSizeLike) -> _Parsed:
    # A piece of text has one quad; the rest of a longer run is dropped.
    found = [(label, quad) for label, run in _phrases(text) for quad in _groups(run, 8)[:1]]
    quads = _pixels([quad for _, quad in found], image_size).reshape(-1, 8)
    result = TextRegions(quads, [label.text for label, _ in found])
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
        groups = [] if "<poly>" in run.group() else _groups(run, 4)
        outlined = [[_pixels([polygon], image_size) for polygon in outline] for outline in outlines]
        boxes += [_enclosing_box(outline) for outline in outlined]
        boxes += [_pixels([box], image_size).reshape(4) for box in groups]
        polygons += outlined + [[] for _ in groups]
        labels += [label] * (len(outlines) + len(groups))
        locations += [_span(*outline) for outline in outlines] + [_span(box) for box in groups]
    texts = [label.text for label in labels]
    result = Detections(np.array(boxes), texts, polygons=polygons if any(polygons) else None)
    return _Parsed(result, locations, [label.span for label in labels])


def _phrases(text: str) -> Iterator[tuple[_Label, re.Match[str]]]:
    """Each label with the run of locations and separators after it. Labels may be blank, but not missing."""
    end = 0
    for run in _LOCATION_RUN.finditer(text):
        label = _label(text, end, run.start())
        end = run.end()
        if label:
            yield label, run


def _label(text: str, start: int, end: int) -> _Label | None:
    """The label in a part of the text; None if the part contains only markup."""
    label = _MARKUP.sub("", text[start:end])
    if not label:
        return None
    letters = [part for part in _MARKUP_OR_LETTERS.finditer(text, start, end) if part["letters"]]
    span = (letters[0].start(), letters[-1].end()) if letters else (start, end)
    return _Label(label.strip(), span)


def _groups(run: re.Match[str], size: int) -> list[_Locations]:
    """The locations of a run in groups of `size`. An incomplete group before a separator or the end is dropped."""
    pieces = _pieces(run.string, run.span())
    return [piece[start : start + size] for piece in pieces for start in range(0, len(piece) - size + 1, size)]


def _outlines(run: re.Match[str]) -> list[list[_Locations]]:
    """The outlines in a run, each of one or more polygons, each of one or more complete vertices."""
    if run.group().count("<") < _LEAST_OUTLINE_TOKENS:
        return []
    # If the run has <poly>, locations outside <poly>...</poly> belong to no outline.
    insides = [poly.span(1) for poly in _POLY.finditer(run.string, *run.span())] or [run.span()]
    outlines = [_pieces(run.string, inside) for inside in insides]
    complete = [[piece[: len(piece) // 2 * 2] for piece in outline if len(piece) > 1] for outline in outlines]
    return [outline for outline in complete if outline]


def _pieces(text: str, span: Span) -> list[_Locations]:
    """The locations in a run or in a part of it, split at separators."""
    pieces: list[_Locations] = [[]]
    for token in _LOCATION_OR_SEPARATOR.finditer(text, *span):
        if token[1] is None:
            pieces.append([])
        else:
            pieces[-1].append(token)
    return pieces


def _pixels(groups: list[_Locations], image_size: ImageSizeLike) -> Float32Array:
    """The locations as pixels, x and y, of shape (M, 2)."""
    return bins_to_pixels([[int(location[1]) for location in group] for group in groups], image_size)


def _span(*groups: _Locations) -> Span:
    """The span from the first location to the last."""
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
