"""Installed fonts, the characters of each, and drawing with them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from florence2.drawing.colors import Color

_SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
_FC_MATCH_SECONDS = 10
# Fonts that contain pictures only have them in these sizes: Google's and Apple's.
_BITMAP_SIZES = (109, 160, 136, 128, 96, 64)
_PROBED_SIZE = 16
_NO_CHARACTER = "\U0010fffd"  # for private use: fonts draw their glyph for missing characters
_NO_INK = frozenset("\u200c\u200d\u200e\u200f\ufe0e\ufe0f\u2060")  # joiners, marks of direction, variation selectors
# Without fontconfig: families in the order in which they are tried. The rest follow by name.
_FAMILIES = (
    *("notosans-", "dejavusans", "segoeui", "arial", "helvetica", "liberationsans", "roboto"),
    *("notosans", "nirmala", "leelaw", "tahoma", "yugoth", "msyh", "malgun", "hiragino", "pingfang", "applesdgothic"),
)
_STYLES = ("bold", "italic", "oblique", "light", "thin", "black", "heavy", "condensed", "mono", "serif")


@dataclass(frozen=True)
class FontSource:
    """A font's file, and its index there; without a path, Pillow's own font, which has little more than ASCII."""

    path: str | None = None
    index: int = 0

    @property
    def has_pictures(self) -> bool:
        """Whether it is for emoji, so that its digits and letters are not for text."""
        return self.path is not None and "emoji" in Path(self.path).name.lower()


@lru_cache(maxsize=256)
def load(source: FontSource, size: int) -> tuple[ImageFont.FreeTypeFont, float]:
    """Open a font.

    Returns:
        The font, and the factor from its pixels to those of the size: 1 unless it only has other sizes.

    Raises:
        OSError: the file cannot be read, or is not a font.
    """
    if source.path is None:
        own = ImageFont.load_default(size)
        assert isinstance(own, ImageFont.FreeTypeFont)  # as always if a size is given
        return own, 1.0
    try:
        return ImageFont.truetype(source.path, size, source.index), 1.0
    except OSError as error:
        for fixed in _BITMAP_SIZES if "pixel size" in str(error) else ():
            try:
                return ImageFont.truetype(source.path, fixed, source.index), size / fixed
            except OSError:
                continue
        raise


class Typeface:
    """A font at a size in pixels.

    Attributes:
        source: its file.
        has_pictures: whether it is for emoji.

    Raises:
        OSError: as for `load`.
    """

    def __init__(self, source: FontSource, size: int) -> None:
        self.source = source
        self.has_pictures = source.has_pictures
        self._font, self._factor = load(source, size)

    def has(self, text: str) -> bool:
        """Whether the font has all characters of a text."""
        return all(has_character(self.source, character) for character in text)

    def length(self, text: str) -> float:
        """The width of a text in pixels."""
        return self._font.getlength(text) * self._factor

    def extents(self, text: str) -> tuple[float, float]:
        """The ink's height above the baseline, and below it."""
        _, top, _, bottom = self._font.getbbox(text, anchor="ls")
        return -top * self._factor, bottom * self._factor

    def draw(self, picture: Image.Image, start: tuple[float, float], text: str, color: Color) -> None:
        """Draw a text that starts at a point of its baseline."""
        if not self.has_pictures:
            ImageDraw.Draw(picture).text(start, text, color, self._font, anchor="ls")
            return
        above, below = (round(extent / self._factor) for extent in self.extents(text))
        width = max(1, round(self._font.getlength(text)))
        tile = Image.new("RGBA", (width, max(1, above + below)))
        canvas = ImageDraw.Draw(tile)
        canvas.text((0, above), text, (*color, 255), self._font, anchor="ls", embedded_color=True)
        size = (max(1, round(tile.width * self._factor)), max(1, round(tile.height * self._factor)))
        scaled = tile.resize(size, Image.Resampling.LANCZOS, reducing_gap=2)
        picture.paste(scaled, (round(start[0]), round(start[1] - above * self._factor)), scaled)


@lru_cache(maxsize=65_536)
def has_character(source: FontSource, character: str) -> bool:
    """Whether a font has a character: whether it draws another glyph than for a character that no font has.

    Pillow does not show a font's table of characters.
    """
    if character in _NO_INK or character.isspace():
        return True
    return _look(source, character) != _look(source, _NO_CHARACTER)


@lru_cache(maxsize=4096)
def _look(source: FontSource, character: str) -> tuple[object, ...]:
    font = _probe(source)
    if font is None:
        return ()
    mask, offset = font.getmask2(character, mode="L")
    return bytes(mask), mask.size, offset, font.getlength(character)


@cache
def _probe(source: FontSource) -> ImageFont.FreeTypeFont | None:
    """The font in a small size, without shaping; None if it cannot be opened."""
    try:
        font, _ = load(source, _PROBED_SIZE)
        return font.font_variant(layout_engine=ImageFont.Layout.BASIC)
    except OSError:
        return None


@cache
def system_fonts(language: str = "") -> tuple[FontSource, ...]:
    """The installed fonts, in the order in which they are tried.

    Args:
        language: as fontconfig spells it (`ja`); it decides between fonts that draw a character in different ways. By
            default that of the user's locale.
    """
    found = _from_fontconfig(language) or tuple(_from_folders())
    return tuple(source for source in found if str(source.path).lower().endswith(_SUFFIXES))


def _from_fontconfig(language: str) -> tuple[FontSource, ...]:
    """Fontconfig's order for a plain sans-serif font, without fonts that add no character."""
    command = shutil.which("fc-match")
    if command is None:
        return ()
    pattern = f"sans-serif:lang={language}" if language else "sans-serif"
    arguments = [command, "--sort", "--format", "%{index}\t%{file}\n", pattern]
    try:
        result = subprocess.run(arguments, capture_output=True, check=True, timeout=_FC_MATCH_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return ()
    lines = [line.split("\t", 1) for line in os.fsdecode(result.stdout).splitlines()]
    return tuple(FontSource(line[1], int(line[0])) for line in lines if len(line) == 2 and line[0].isdigit())


def _from_folders() -> Iterator[FontSource]:
    files = {file for folder in _folders() if folder.is_dir() for file in folder.rglob("*") if file.is_file()}
    return (FontSource(str(file)) for file in sorted(files, key=_preference))


def _folders() -> list[Path]:
    """The folders in which systems keep fonts."""
    home = Path("~").expanduser()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", str(home / "AppData" / "Local"))
        return [
            Path(os.environ.get("WINDIR", r"C:\Windows")) / "Fonts",
            Path(local) / "Microsoft" / "Windows" / "Fonts",
        ]
    if sys.platform == "darwin":
        return [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library" / "Fonts"]
    data = Path(os.environ.get("XDG_DATA_HOME", str(home / ".local" / "share")))
    return [Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), data / "fonts", home / ".fonts"]


def _preference(file: Path) -> tuple[int, int, str]:
    name = file.stem.lower().replace(" ", "")
    family = next((rank for rank, start in enumerate(_FAMILIES) if name.startswith(start)), len(_FAMILIES))
    return sum(style in name for style in _STYLES), family, str(file)
