"""Answers in words and tables: which rows and columns a result has, as text for people."""

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np

from florence2.errors import Florence2Error
from florence2.plan_results import AnalyzedRegion, GroundedCaption, PlanResult, RegionAnalysis, TaskResults
from florence2.results import Detections, Result, Segmentation, Text, TextRegions

Cell: TypeAlias = Callable[[Any], str]


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    cell: Cell
    """The text for an item, e.g. for a `Detection`."""
    is_number: bool = False
    """Whether it is aligned to the right."""


@dataclass(frozen=True)
class Section:
    """A part of an answer: a text, or a table."""

    text: str = ""
    header: list[str] = field(default_factory=list)
    """The columns' names; empty if the section is a text."""
    rows: list[list[str]] = field(default_factory=list)


def sections(result: Result | PlanResult, columns: Sequence[str] = ()) -> Iterator[Section]:
    """The parts of a result.

    Args:
        result: the result.
        columns: what its table shows; empty for the usual columns of its type.
    """
    match result:
        case Text():
            yield Section(_line(result.text))
        case Detections() | Segmentation() | TextRegions():
            yield _table(list(result), columns or _USUAL[type(result)])
        case GroundedCaption():
            yield Section(_line(result.caption.text))
            if result.detections is not None:
                yield _table(list(result.detections), columns or _USUAL[Detections])
        case RegionAnalysis():
            yield _table(result.regions, columns or _USUAL[RegionAnalysis])
        case TaskResults():
            for outcome in result.outcomes:
                if not isinstance(outcome, Florence2Error):
                    yield from sections(outcome)


def score_text(score: float | None) -> str:
    """A score as people read it: "92 %"; empty if it is unknown."""
    return "" if score is None else f"{100 * score:.0f} %"


def _table(items: Sequence[Any], names: Sequence[str]) -> Section:
    return Section(header=list(names), rows=[[COLUMNS[name].cell(item) for name in names] for item in items])


def _line(text: str) -> str:
    """A text in one line, without control characters, which could change the terminal."""
    visible = "".join(" " if character.isspace() else character for character in text)
    return "".join(each for each in visible if not unicodedata.category(each).startswith("C")).strip()


def _label(item: Any) -> str:
    return _line(item.label)


def _score(item: Any) -> str:
    return score_text(item.score)


def _numbers(values: Any) -> str:
    return " ".join(f"{value:.0f}" for value in np.ravel(values))


def _outline(item: Any) -> str:
    points = [len(polygon) for polygon in item.polygons]
    return "" if not points else f"{' + '.join(map(str, points))} points"


def _extent(item: Any) -> str:
    """The box that encloses the outline."""
    if not item.polygons:
        return ""
    points = np.concatenate(item.polygons)
    return _numbers([points.min(axis=0), points.max(axis=0)])


def _answer(region: AnalyzedRegion) -> str:
    if region.error is not None:
        return f"({_line(str(region.error))})"
    if isinstance(region.result, Segmentation):
        return ", ".join(_outline(item) for item in region.result)
    return _line(region.result.text) if region.result else ""


COLUMNS: Final[Mapping[str, Column]] = {
    **dict.fromkeys(("object", "phrase", "description", "text", "label"), Column(_label)),
    "score": Column(_score, is_number=True),
    "box": Column(lambda item: _numbers(item.box)),
    "quad": Column(lambda item: _numbers(item.quad)),
    "outline": Column(_outline),
    "extent": Column(_extent),
    "answer": Column(_answer),
}
"""All columns by name. Coordinates are pixels: x_min y_min x_max y_max, or the four corners of a quad."""

_USUAL: Final[Mapping[type, Sequence[str]]] = {
    Detections: ("label", "score", "box", "outline"),
    Segmentation: ("label", "score", "extent", "outline"),
    TextRegions: ("text", "score", "quad"),
    RegionAnalysis: ("object", "answer", "box"),
}
