"""Text in any script: a font for each of its parts, lines that fit, and drawing them."""

import logging
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from itertools import chain, groupby
from typing import NamedTuple, TypeAlias

from PIL import Image

from florence2.drawing.clusters import (
    clusters,
    is_emoji,
    is_right_to_left,
    is_wide,
    kind,
    language,
    printable,
    spelled,
    words,
)
from florence2.drawing.colors import Color
from florence2.drawing.typefaces import FontSource, Typeface, system_fonts

_LOGGER = logging.getLogger(__name__)
_SPACES_AROUND = re.compile(r"(^\s+|\s+$)")


@cache
def _report(missing: str) -> None:
    """Log, once for each script, that fonts are missing."""
    _LOGGER.warning("no font has %s: install one, such as a Noto font, or draw with font=...", missing)


class Glyph(NamedTuple):
    """A letter with its marks, in a font that has them."""

    text: str
    face: Typeface


Line: TypeAlias = Sequence[Glyph]


class Typesetter:
    """Chooses fonts for texts.

    Args:
        size: of the letters, in pixels.
        fonts: files of fonts that come first. Pillow's own font follows, then those of the system.

    Raises:
        OSError: one of `fonts` cannot be read.
    """

    def __init__(self, size: int, fonts: Sequence[str] = ()) -> None:
        self.size = size
        self._own = Typeface(FontSource(), size)
        self._first = [*(Typeface(FontSource(path), size) for path in fonts), self._own]

    def line(self, text: str) -> list[Glyph]:
        """The text on one line. It has one font if one has all letters, else one for each word or letter.

        A letter that no font has is replaced by similar ones in ASCII, or by `?`.
        """
        parts = clusters(printable(text))
        faces: list[Typeface | None] = [None] * len(parts)
        hint = language(text)
        letters = [place for place, part in enumerate(parts) if not part.isspace() and not is_emoji(part)]
        spans = (letters[bisect_left(letters, start) : bisect_left(letters, end)] for start, end in words(parts))
        for places in (letters, *spans):
            missing = [place for place in places if faces[place] is None]
            if missing and (face := self._face("".join(parts[place] for place in missing), hint)):
                for place in missing:
                    faces[place] = face
        for place, part in enumerate(parts):
            faces[place] = faces[place] or self._face_of_one(part, hint)
        return list(self._glyphs(parts, faces))

    def ellipsis(self) -> list[Glyph]:
        """What stands for the rest of a text that is too long."""
        return [Glyph(".", self._own)] * 3

    def _face(self, text: str, hint: str) -> Typeface | None:
        """The first font for text that has all characters."""
        return next((face for face in self._faces(hint) if face.has(text) and not face.has_pictures), None)

    def _face_of_one(self, cluster: str, hint: str) -> Typeface | None:
        """The first font that has a cluster, also among those of pictures: first for emoji, and last for others."""
        pictures_first = is_emoji(cluster)
        ordered = sorted(self._faces(hint), key=lambda face: face.has_pictures != pictures_first)
        return next((face for face in ordered if face.has(cluster)), None)

    def _faces(self, hint: str) -> Iterable[Typeface]:
        return chain(self._first, _system_faces(self.size, hint))

    def _glyphs(self, parts: list[str], faces: list[Typeface | None]) -> Iterator[Glyph]:
        for part, face in zip(parts, faces, strict=True):
            if face is None:
                _report(kind(part))
        before = next((face for face in faces if face and not face.has_pictures), self._own)
        for part, face in zip(parts, faces, strict=True):
            if part.isspace():
                yield Glyph(" ", before)
            elif face is None:
                yield from (Glyph(letter, self._own) for letter in spelled(part))
            else:
                before = before if face.has_pictures else face
                yield Glyph(part, face)


@lru_cache(maxsize=16)
def _system_faces(size: int, hint: str) -> tuple[Typeface, ...]:
    return tuple(_opened(system_fonts(hint), size))


def _opened(sources: Sequence[FontSource], size: int) -> Iterator[Typeface]:
    for source in sources:
        try:
            yield Typeface(source, size)
        except OSError:  # a damaged file, or a font without this size, among those that the system has
            continue


def length(line: Line) -> float:
    """The width of a line in pixels."""
    return sum(face.length(text) for text, face in _runs(line))


def extents(line: Line) -> tuple[float, float]:
    """The ink's height above the baseline, and below it; zeros for an empty line."""
    found = [face.extents(text) for text, face in _runs(line)]
    return max((above for above, _ in found), default=0.0), max((below for _, below in found), default=0.0)


def draw_line(picture: Image.Image, start: tuple[float, float], line: Line, color: Color) -> None:
    """Draw a line whose left end on the baseline is `start`."""
    x, y = start
    for text, face in _visual(_runs(line)):
        face.draw(picture, (x, y), text, color)
        x += face.length(text)


def wrapped(line: Line, width: float) -> list[list[Glyph]]:
    """Break a line into lines of at most `width` pixels: after spaces, between wide letters, else anywhere."""
    lines: list[list[Glyph]] = []
    current: list[Glyph] = []
    used, place = 0.0, 0  # the place after which the current line may be broken
    for glyph in line:
        advance = _advance(glyph)
        if current and used + advance > width and not glyph.text.isspace():
            place = place or len(current)
            lines.append(current[:place])
            current = current[place:]
            used, place = sum(map(_advance, current)), 0
        if is_wide(glyph.text) and current:
            place = len(current)
        current.append(glyph)
        used += advance
        if glyph.text.isspace() or is_wide(glyph.text):
            place = len(current)
    return [kept for each in (*lines, current) if (kept := _without_spaces(each))]


def shortened(line: Line, width: float, ellipsis: Line) -> list[Glyph]:
    """The line if it fits into `width` pixels, else as much of its beginning as fits before an ellipsis."""
    if length(line) <= width:
        return list(line)
    room, kept = width - length(ellipsis), list[Glyph]()
    for glyph in line:
        room -= _advance(glyph)
        if room < 0 and kept:
            break
        kept.append(glyph)
    return [*_without_spaces(kept), *ellipsis]


def is_leftward(line: Line) -> bool:
    """Whether the line is read from right to left."""
    return is_right_to_left(glyph.text for glyph in line)


def _without_spaces(line: Sequence[Glyph]) -> list[Glyph]:
    """The line without spaces at its ends."""
    inked = [place for place, glyph in enumerate(line) if not glyph.text.isspace()]
    return list(line[inked[0] : inked[-1] + 1]) if inked else []


@lru_cache(maxsize=65_536)
def _advance(glyph: Glyph) -> float:
    return glyph.face.length(glyph.text)


def _runs(line: Line) -> list[tuple[str, Typeface]]:
    """Neighbors of the same font, drawn at once, so that letters join and kern."""
    groups = groupby(line, key=lambda glyph: glyph.face)
    return [("".join(glyph.text for glyph in group), face) for face, group in groups]


def _visual(runs: list[tuple[str, Typeface]]) -> list[tuple[str, Typeface]]:
    """Runs from left to right: consecutive runs of Arabic or Hebrew are reversed, and all if the first one is such.

    The font's shaping does the same inside each run; spaces at its ends belong to the line instead.
    """
    leftward = is_right_to_left(text for text, _ in runs)
    parts = [(part, face) for text, face in runs for part in _SPACES_AROUND.split(text) if part]
    groups = [(key, list(group)) for key, group in groupby(parts, key=lambda part: _is_leftward(part[0], leftward))]
    ordered = [group[::-1] if key else group for key, group in groups]
    return [run for group in (ordered[::-1] if leftward else ordered) for run in group]


def _is_leftward(text: str, base: bool) -> bool:
    has_letters = any(character.isalpha() for character in text)
    return is_right_to_left(text) if has_letters else base
