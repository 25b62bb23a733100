"""Random scenes, determined by their seed.

A `_FRACTION` refers to the canvas's shorter side; a `_GAP_FRACTION` refers to the respective side.
"""

# ruff: noqa: S311 - seeded on purpose

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeVar

from training.demo.scenes import BACKGROUNDS, COLORS, KINDS, WORDS, Box, Scene, Shape, Word, bin_of, ink_box, zone

MARGIN_FRACTION = 0.02
FONT_SIZE_FRACTIONS = (0.18, 0.36)
SIZE_FRACTIONS = {"small": (0.17, 0.23), "large": (0.33, 0.43)}
# The order of two objects is ambiguous if their centers are closer than this; so is a zone if the center is closer than
# this to a boundary between thirds.
ORDER_GAP_FRACTION = 0.05
ZONE_GAP_FRACTION = 0.015

# The ranges are disjoint, so that no held-out scene is in the training data.
TRAINING_SEEDS = range(1_000_000, 1_000_000_000)
HELD_OUT_SEEDS = range(100_000)

Item = TypeVar("Item", Shape, Word)


@dataclass(frozen=True)
class Limits:
    """The most objects in a scene, and the probability that a shape repeats the first one's label."""

    shapes: int = 3
    words: int = 2
    repeats: float = 0.15


def sample_scene(seed: int, limits: Limits = Limits()) -> Scene:
    """The scene of a seed within `limits`; deterministic."""
    rng = random.Random(seed)
    while True:
        scene = _arrange(rng, limits)
        if scene is not None and _is_clear(scene):
            return scene


def _arrange(rng: random.Random, limits: Limits) -> Scene | None:
    """One attempt at a scene; None if there was no room for an object."""
    width, height = _canvas(rng)
    words = [_word(rng, min(width, height), text) for text in _texts(rng, limits)]
    shapes = _shapes(rng, min(width, height), limits)
    placed: list[Box] = []
    items: list[Word | Shape] = [*words, *sorted(shapes, key=lambda shape: shape.size)]
    for item in items:
        box = _place(rng, item.box, placed, (width, height))
        if box is None:
            return None
        placed.append(box)
    words = [replace(word, box=box) for word, box in zip(words, placed, strict=False)]
    shapes = sorted(shapes, key=lambda shape: shape.size)
    shapes = [replace(shape, box=box) for shape, box in zip(shapes, placed[len(words) :], strict=True)]
    return Scene(width, height, rng.choice(list(BACKGROUNDS)), _in_order(shapes), _in_order(words))


def _canvas(rng: random.Random) -> tuple[int, int]:
    """Width and height: a longer side of 256 to 640 pixels, an aspect ratio of 2:3 to 3:2."""
    longer, ratio = rng.randint(256, 640), math.exp(rng.uniform(-0.405, 0.405))
    return (longer, round(longer * ratio)) if ratio < 1 else (round(longer / ratio), longer)


def _texts(rng: random.Random, limits: Limits) -> list[str]:
    count = rng.choices(range(limits.words + 1), [1, 6, 6][: limits.words + 1])[0]
    return rng.sample(WORDS, count)


def _word(rng: random.Random, side: int, text: str) -> Word:
    """A word at the canvas's corner, before placement."""
    font_size = round(side * rng.uniform(*FONT_SIZE_FRACTIONS))
    ink = ink_box(text, font_size)
    return Word(text, font_size, Box(0, 0, ink.right - ink.left, ink.bottom - ink.top))


def _shapes(rng: random.Random, side: int, limits: Limits) -> list[Shape]:
    """Shapes at the canvas's corner, before placement; some repeat the first one's label."""
    shapes: list[Shape] = []
    # Fuller scenes are rejected more often, so they are drawn more often.
    for _ in range(rng.choices(range(1, limits.shapes + 1), [4, 5, 8][: limits.shapes])[0]):
        kind, color, size = rng.choice(KINDS), rng.choice(list(COLORS)), rng.choice(list(SIZE_FRACTIONS))
        if shapes and rng.random() < limits.repeats:
            kind, color = shapes[0].kind, shapes[0].color
        length = round(side * rng.uniform(*SIZE_FRACTIONS[size]))
        shapes.append(Shape(kind, color, size, Box(0, 0, length, length)))
    return shapes


def _place(rng: random.Random, box: Box, placed: list[Box], canvas: tuple[int, int]) -> Box | None:
    """Move the box to a free place on the canvas of (width, height); None after 30 failed attempts."""
    margin = round(min(canvas) * MARGIN_FRACTION)
    spare = (canvas[0] - box.right - 2 * margin, canvas[1] - box.bottom - 2 * margin)
    if min(spare) < 0:
        return None
    for _ in range(30):
        x, y = margin + rng.randint(0, spare[0]), margin + rng.randint(0, spare[1])
        moved = Box(x, y, x + box.right, y + box.bottom)
        if all(moved.apart(other, margin) for other in placed):
            return moved
    return None


def _in_order(items: list[Item]) -> tuple[Item, ...]:
    return tuple(sorted(items, key=lambda item: item.box.center[0]))


def _is_clear(scene: Scene) -> bool:
    """Whether order and zones are unambiguous and no answer repeats three tokens."""
    return (
        all(_order_is_clear(scene, items) for items in (scene.shapes, scene.words))
        and all(_zone_is_clear(scene, shape.box) for shape in scene.shapes)
        and not any(_repeats(scene, box) for box in scene.boxes())
        and not any(_share_tokens(scene, a, b) for a, b in combinations(scene.shapes, 2))
    )


def _order_is_clear(scene: Scene, items: Sequence[Shape | Word]) -> bool:
    centers = [item.box.center[0] / scene.width for item in items]
    return all(abs(a - b) >= ORDER_GAP_FRACTION for a, b in combinations(centers, 2))


def _zone_is_clear(scene: Scene, box: Box) -> bool:
    x, y = box.center[0] / scene.width, box.center[1] / scene.height
    return all(abs(value - third) > ZONE_GAP_FRACTION for value in (x, y) for third in (1 / 3, 2 / 3))


def _repeats(scene: Scene, box: Box) -> bool:
    """Whether the corners of the box may repeat three location tokens: if an x and a y coordinate share a bin."""
    columns = {bin_of(x, scene.width) for x in (box.left, box.right)}
    return not columns.isdisjoint({bin_of(y, scene.height) for y in (box.top, box.bottom)})


def _share_tokens(scene: Scene, a: Shape, b: Shape) -> bool:
    """Whether naming both repeats three tokens, as in `red circle upper left; red circle upper right`."""
    zones = zone(scene, a.box), zone(scene, b.box)
    lefts = {bin_of(shape.box.left, scene.width) for shape in (a, b)}
    bottoms = {bin_of(shape.box.bottom, scene.height) for shape in (a, b)}
    same_row = zones[0].split()[0] == zones[1].split()[0] and a.size != b.size
    return (
        (a.kind == b.kind and zones[0] == zones[1])
        or (a.label == b.label and (same_row or len(lefts) == 1))
        or (a.color == b.color and len(bottoms) == 1)
    )
