"""Sizes of what is drawn, for the size of a picture."""

from dataclasses import dataclass

_SMALL = 24  # pixels: a side of a picture that has no room for letters, nor for more than a thin line
_LETTERS_PER_SIDE = 40
_LINES_PER_SIDE = 280


@dataclass(frozen=True)
class Pen:
    """All in pixels.

    Attributes:
        width: of lines.
        halo: width of the contrasting border on each side of a line.
        letter_height: the size of fonts.
        has_tags: whether the picture has room for labels.
    """

    width: int
    halo: int
    letter_height: int
    has_tags: bool

    @classmethod
    def fitting(cls, size: tuple[int, int]) -> "Pen":
        """The pen for a picture of that width and height.

        The side of the square of the same area counts, so that a panorama is not covered by its letters.
        """
        shorter, side = min(size), (size[0] * size[1]) ** 0.5
        if shorter < _SMALL:
            return cls(width=1, halo=0, letter_height=11, has_tags=False)
        width = max(2, round(side / _LINES_PER_SIDE))
        letters = max(11, min(round(side / _LETTERS_PER_SIDE), shorter // 6))
        return cls(width=width, halo=max(1, width // 3), letter_height=letters, has_tags=True)

    @property
    def margin(self) -> int:
        """Between letters and the edge of their background."""
        return max(2, self.letter_height // 4)

    @property
    def border(self) -> int:
        """Width of a line and one halo."""
        return self.width + self.halo
