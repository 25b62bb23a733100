"""Scenes of colored shapes and short words, and their rendering. Lengths are in pixels of the scene's canvas."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

KINDS = ("circle", "square", "triangle")
COLORS = {
    "red": (220, 30, 35),
    "green": (30, 160, 60),
    "blue": (35, 75, 220),
    "yellow": (245, 215, 40),
    "purple": (140, 45, 170),
    "orange": (250, 130, 20),
}
BACKGROUNDS = {"white": (255, 255, 255), "gray": (150, 150, 150)}
INK = (0, 0, 0)
WORDS = (
    "OPEN",
    "EXIT",
    "STOP",
    "CAFE",
    "SALE",
    "TAXI",
    "MENU",
    "PARK",
    "ZOO",
    "NEWS",
    "BANK",
    "FISH",
    "MUSIC",
    "BOOK",
)
BINS = 1000


@dataclass(frozen=True)
class Box:
    """A bounding box in pixels; `right` and `bottom` are exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def center(self) -> tuple[float, float]:
        """The center (x, y) in pixels."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def apart(self, other: Box, margin: float) -> bool:
        """Whether the gap between the two boxes is at least `margin` pixels."""
        horizontal = max(self.left, other.left) - min(self.right, other.right)
        vertical = max(self.top, other.top) - min(self.bottom, other.bottom)
        return max(horizontal, vertical) >= margin


@dataclass(frozen=True)
class Shape:
    """A colored shape that fills its square bounding box."""

    kind: str
    color: str
    size: str
    box: Box

    @property
    def label(self) -> str:
        """Color and kind, the label in detection: `red circle`."""
        return f"{self.color} {self.kind}"

    @property
    def description(self) -> str:
        """Size, color and kind: `large red circle`."""
        return f"{self.size} {self.label}"

    def polygon(self) -> list[tuple[float, float]]:
        """The outline as (x, y) vertices in pixels, clockwise from the top left or the top; a circle as an octagon."""
        x1, y1, x2, y2 = self.box.left, self.box.top, self.box.right, self.box.bottom
        x, y = self.box.center
        if self.kind == "square":
            return [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
        if self.kind == "triangle":
            return [(x, y1), (x2, y2), (x1, y2)]
        radius = (x2 - x1) / 2
        turns = [math.radians(angle) for angle in range(0, 360, 45)]
        return [(x + radius * math.sin(turn), y - radius * math.cos(turn)) for turn in turns]


@dataclass(frozen=True)
class Word:
    """A word of text; `box` is the font's bounding box, and `font_size` is in pixels."""

    text: str
    font_size: int
    box: Box


@dataclass(frozen=True)
class Scene:
    """The contents of an image; shapes and words are in reading order, left to right by their centers."""

    width: int
    height: int
    background: str
    shapes: tuple[Shape, ...]
    words: tuple[Word, ...]

    def boxes(self) -> list[Box]:
        """The bounding boxes of all shapes and words."""
        return [*(shape.box for shape in self.shapes), *(word.box for word in self.words)]


def draw(scene: Scene) -> Image.Image:
    """Render the scene as an RGB image of its width and height."""
    image = Image.new("RGB", (scene.width, scene.height), BACKGROUNDS[scene.background])
    canvas = ImageDraw.Draw(image)
    for shape in scene.shapes:
        _draw_shape(canvas, shape)
    for word in scene.words:
        ink = ink_box(word.text, word.font_size)
        origin = (word.box.left - ink.left, word.box.top - ink.top)
        font, stroke = ImageFont.load_default(word.font_size), stroke_width(word.font_size)
        canvas.text(origin, word.text, INK, font, stroke_width=stroke)
    return image


def stroke_width(font_size: int) -> int:
    """The extra stroke width of letters in pixels: thin letters all but vanish at the model's 128 pixels."""
    return max(1, round(0.035 * font_size))


def ink_box(text: str, font_size: int) -> Box:
    """The font's bounding box of a text drawn at (0, 0)."""
    corners = ImageFont.load_default(font_size).getbbox(text, stroke_width=stroke_width(font_size))
    return Box(*map(int, corners))


def _draw_shape(canvas: ImageDraw.ImageDraw, shape: Shape) -> None:
    color = COLORS[shape.color]
    # Pillow's corners are inclusive, a Box's right and bottom are exclusive.
    corners = (shape.box.left, shape.box.top, shape.box.right - 1, shape.box.bottom - 1)
    if shape.kind == "circle":
        canvas.ellipse(corners, color)
    elif shape.kind == "square":
        canvas.rectangle(corners, color)
    else:
        canvas.polygon(shape.polygon(), color)


def zone(scene: Scene, box: Box) -> str:
    """The zone of a box's center in the words of a caption: `upper left`, `center`, `lower right`."""
    x, y = box.center
    column = ("left", "center", "right")[int(3 * x / scene.width)]
    row = ("upper", "center", "lower")[int(3 * y / scene.height)]
    return "center" if row == column else f"{row} {column}"


def bin_of(pixel: float, side: int) -> int:
    """The location bin, 0..999, of a coordinate on a side of `side` pixels."""
    return min(max(int(pixel * BINS / side), 0), BINS - 1)
