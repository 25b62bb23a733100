"""Text as the units that a reader sees: letters with their marks, emoji with their modifiers; and their direction."""

import unicodedata
from collections.abc import Iterable, Iterator

_JOINER = "\u200d"
_KEPT = frozenset("\u200c\u200d\u200e\u200f")  # invisible, but they change how their neighbors look
_LANGUAGES = ((0x3040, 0x30FF, "ja"), (0x31F0, 0x31FF, "ja"), (0x1100, 0x11FF, "ko"), (0xAC00, 0xD7AF, "ko"))
_SPELLED = {
    **{ord(quote): "'" for quote in "\u2018\u2019\u201a\u2032"},
    **{ord(quote): '"' for quote in "\u201c\u201d\u201e\u2033\u00ab\u00bb"},
    **{ord(dash): "-" for dash in "\u2010\u2011\u2012\u2013\u2014\u2212"},
    **dict(zip(map(ord, "ßÆæØøŒœ€…"), ("ss", "AE", "ae", "O", "o", "OE", "oe", "EUR", "..."), strict=True)),
}


def printable(text: str) -> str:
    """The text on one line, without invisible characters, and with `?` for those that no font has.

    These are control characters, lone surrogates, and code points without a character.
    """
    kept = (c for c in " ".join(text.split()) if c in _KEPT or unicodedata.category(c) != "Cf")
    return "".join(c if c.isprintable() or c in _KEPT else "?" for c in kept)


def is_blank(text: str) -> bool:
    """Whether nothing of a text can be seen."""
    return all(character in _KEPT for character in printable(text).replace(" ", ""))


def clusters(text: str) -> list[str]:
    """Split a text between letters, but not between a letter and its marks, nor inside an emoji.

    This is the part of Unicode's rules (UAX 29) that matters for choosing a font and for breaking lines.
    """
    parts: list[str] = []
    for character in text:
        if parts and (_extends(character) or parts[-1].endswith(_JOINER) or _completes_flag(parts[-1], character)):
            parts[-1] += character
        else:
            parts.append(character)
    return parts


def is_emoji(cluster: str) -> bool:
    """Whether a cluster is drawn as a picture if there is a font for it."""
    first = ord(cluster[0])
    return "\ufe0f" in cluster or "\u20e3" in cluster or 0x1F000 <= first <= 0x1FAFF


def is_wide(cluster: str) -> bool:
    """Whether a line may be broken before and after the cluster, as in Chinese and Japanese."""
    return unicodedata.east_asian_width(cluster[0]) in ("W", "F")


def language(text: str) -> str:
    """The language that decides how Chinese characters look, as fontconfig spells it; empty if the text does not say.

    Texts with kana are Japanese, those with Hangul Korean, and others Chinese.
    """
    for character in text:
        for first, last, name in _LANGUAGES:
            if first <= ord(character) <= last:
                return name
    return "zh-cn" if any(unicodedata.name(c, "").startswith("CJK") for c in text) else ""


def kind(cluster: str) -> str:
    """What a cluster is an instance of, by Unicode's names: `all GREEK letters`, or a symbol's own name."""
    name = unicodedata.name(cluster[0], "characters without a name")
    return f"all {name.split()[0]} letters" if cluster[0].isalpha() else name


def spelled(cluster: str) -> str:
    """A cluster in ASCII: a letter without its marks, plain quotes and dashes, or `?`."""
    plain = unicodedata.normalize("NFKD", cluster.translate(_SPELLED))
    return "".join(c for c in plain if c.isascii() and c.isprintable()) or "?"


def is_right_to_left(text: Iterable[str]) -> bool:
    """Whether the first letter that has a direction is Arabic, Hebrew or the like."""
    for character in "".join(text):
        direction = unicodedata.bidirectional(character)
        if direction in ("L", "R", "AL"):
            return direction != "L"
    return False


def _extends(character: str) -> bool:
    is_modifier = 0x1F3FB <= ord(character) <= 0x1F3FF
    return is_modifier or character in _KEPT or unicodedata.category(character) in ("Mn", "Mc", "Me")


def _completes_flag(cluster: str, character: str) -> bool:
    """Whether the character is the second of the two letters that make a flag."""
    return len(cluster) == 1 and all(0x1F1E6 <= ord(letter) <= 0x1F1FF for letter in (cluster, character))


def words(parts: list[str]) -> Iterator[tuple[int, int]]:
    """The places (start, end) of what is between spaces."""
    start = 0
    for place, part in enumerate([*parts, " "]):
        if part.isspace():
            if place > start:
                yield start, place
            start = place + 1
