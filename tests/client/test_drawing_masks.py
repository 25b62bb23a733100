"""Masks, lines and tags: what they cover, and how they differ from what is under them."""

import time

import numpy as np
import pytest
from florence2 import Detections, Segmentation, TextRegions, draw
from florence2.drawing.colors import PALETTE, assigned_colors
from florence2.drawing.items import drawn_items
from florence2.drawing.pen import Pen
from florence2.drawing.tags import placed_tags
from florence2.drawing.typesetting import Typesetter
from PIL import Image, ImageDraw, ImageFont

from tests.conftest import EXAMPLE_SCENE

SIZE = (320, 240)
SQUARE = np.array([[80, 60], [240, 60], [240, 180], [80, 180]])
PHOTO = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
UNDER = {str(color): color for color in (*PALETTE, (0, 0, 0), (255, 255, 255), (128, 128, 128))}
# CIE 1976: 2.3 is a just noticeable difference.
SEEN, OBVIOUS = 10, 30


def lab(pixels) -> np.ndarray:
    """CIE L*a*b* (D65) of sRGB pixels, 0 to 255, of shape (..., 3)."""
    values = np.asarray(pixels) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.moveaxis(np.cbrt(linear @ matrix.T / matrix.sum(axis=1)), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def differences(image, drawn) -> np.ndarray:
    """CIE 1976 color differences of shape (H, W)."""
    return np.linalg.norm(lab(image) - lab(drawn), axis=-1)


def labels_by_color() -> dict[tuple[int, int, int], str]:
    names = map(str, range(200))
    return {assigned_colors([name])[name]: name for name in names}


def test_each_color_of_the_palette_belongs_to_a_label():
    assert set(labels_by_color()) == set(PALETTE)


@pytest.mark.parametrize("under", UNDER.values(), ids=UNDER)
@pytest.mark.parametrize("color", PALETTE, ids=map(str, PALETTE))
def test_a_mask_of_any_color_is_visible_on_an_object_of_any_color(color, under):
    image = Image.new("RGB", SIZE, under)
    drawn = draw(image, Segmentation([[SQUARE]], [labels_by_color()[color]]))
    difference = differences(image, drawn)
    inside = difference[75:165, 95:225]
    # Everywhere inside: no square of a few line widths without a visible pixel.
    blocks = inside[: 90 // 15 * 15, : 130 // 15 * 15].reshape(6, 15, 8, 15).max(axis=(1, 3))
    assert blocks.min() > SEEN
    assert inside.mean() > SEEN / 2
    edge = difference[110:130, 74:87].max(axis=1)  # across the left edge
    assert edge.min() > OBVIOUS


@pytest.mark.parametrize("under", UNDER.values(), ids=UNDER)
def test_a_mask_does_not_hide_what_is_under_it(under):
    image = Image.new("RGB", SIZE, under)
    canvas = ImageDraw.Draw(image)
    canvas.rectangle((150, 60, 160, 180), fill=(0, 0, 0) if sum(under) > 300 else (255, 255, 255))
    for label in labels_by_color().values():
        drawn = draw(image, Segmentation([[SQUARE]], [label]))
        pixels = np.asarray(drawn)[80:160]
        beside, stripe = (pixels[:, columns].mean(axis=(0, 1)) for columns in (slice(100, 140), slice(152, 159)))
        assert np.linalg.norm(lab(beside) - lab(stripe)) > SEEN


def test_masks_on_photographs_are_tinted_without_a_hatch():
    image = Image.fromarray(PHOTO // 8 + 100)  # gray, with noise
    drawn = np.asarray(draw(image, Segmentation([[SQUARE]], ["4"])), int)
    shift = (drawn - np.asarray(image, int))[80:160, 100:220].reshape(-1, 3)
    assert np.ptp(shift, axis=0).max() < 40  # the same tint everywhere


def test_parts_of_a_mask_have_holes_nowhere():
    left, right = SQUARE.clip(max=[170, 999]), SQUARE.clip(min=[150, 0])  # they overlap
    image = Image.new("RGB", SIZE, (128, 128, 128))
    drawn = draw(image, Segmentation([[left, right]], ["cat"]))
    assert (differences(image, drawn)[70:170, 90:230] > 1).all()


def letters(text: str, angle: float, size: tuple[int, int] = (500, 300)) -> tuple[Image.Image, list[float]]:
    """A picture of rotated letters, and the exact quad around their ink."""
    line = Image.new("L", size)
    ImageDraw.Draw(line).text((150, 120), text, 255, ImageFont.load_default(50))
    left, top, right, bottom = line.getbbox()
    turn = np.radians(-angle)
    center = np.array(size) / 2
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)]) - center
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    picture = Image.new("RGB", size, (255, 255, 255))
    picture.paste((0, 0, 0), (0, 0), line.rotate(angle, Image.Resampling.BICUBIC))
    return picture, (corners @ rotation.T + center).ravel().tolist()


@pytest.mark.parametrize("angle", [0, 10, 45, 90, -70, 180])
def test_the_line_around_a_quad_touches_no_letter(angle):
    picture, quad = letters("CAFE", angle)
    drawn = draw(picture, TextRegions([quad], ["CAFE"]))
    ink = np.asarray(picture).max(axis=2) < 250
    different = differences(picture, drawn) > 0
    assert ink.sum() > 1000
    assert not (ink & different).any()
    assert different.any()


def test_the_quad_that_the_demo_checkpoint_gives_for_its_own_picture_cuts_no_letter():
    quad = [60, 353, 299, 352, 299, 417, 60, 417]  # 8 pixels lower than the letters
    picture = Image.open(EXAMPLE_SCENE).convert("RGB")
    drawn = draw(picture, TextRegions([quad], ["CAFE"]))
    ink = np.asarray(picture).max(axis=2) < 128
    assert not (differences(picture, drawn) > 0)[ink].any()


def test_quads_at_the_edges_have_lines_inside_the_picture():
    image = Image.new("RGB", SIZE, (255, 255, 255))
    different = differences(image, draw(image, TextRegions([[0, 0, 320, 0, 320, 240, 0, 240]], ["all"]))) > 10
    assert different[120, :3].any()
    assert different[120, -3:].any()
    assert different[-3:, 160].any()
    assert not different[60:180, 60:260].any()


def test_the_line_of_a_box_is_around_a_small_object():
    image = Image.new("RGB", (640, 480), (255, 255, 255))
    drawn = differences(image, draw(image, Detections([[300, 200, 312, 212]], ["bird"])))
    halo = Pen.fitting(image.size).halo
    assert not drawn[200 + halo : 212 - halo, 300 + halo : 312 - halo].any()


def test_tags_do_not_hide_small_objects_beside_them():
    image = Image.new("RGB", (640, 480), (255, 255, 255))
    small = [[200 + 60 * column, 180, 212 + 60 * column, 192] for column in range(4)]  # where the tag would be
    result = Detections([[200, 200, 500, 400], *small], ["a very long label of a large object", "", "", "", ""])
    bare = Detections(result.boxes, ["", "", "", "", ""], scores=None)
    tag = differences(draw(image, bare[1:]), draw(image, result[:1])) > 0
    drawn = np.asarray(draw(image, result))
    for left, top, right, bottom in small:
        assert (drawn[top + 2 : bottom - 2, left + 2 : right - 2] == 255).all()
    assert tag.any()


def test_tags_of_lines_of_text_do_not_hide_other_lines():
    image = Image.new("RGB", (800, 500), (255, 255, 255))
    canvas, font, quads, words = ImageDraw.Draw(image), ImageFont.load_default(24), [], []
    for number in range(6):
        word = f"line number {number}"
        canvas.text((60, 50 + 64 * number), word, (0, 0, 0), font)
        left, top, right, bottom = canvas.textbbox((60, 50 + 64 * number), word, font)
        quads.append([left, top, right, top, right, bottom, left, bottom])
        words.append(word)
    ink = np.asarray(image).max(axis=2) < 200
    assert not (differences(image, draw(image, TextRegions(quads, words, scores=[0.9] * 6))) > 0)[ink].any()


@pytest.mark.parametrize("pitch", [26, 30, 40, 60])
def test_tags_on_a_page_full_of_text_hide_no_letter(pitch):
    image = Image.new("RGB", (800, 600), (255, 255, 255))
    canvas, font, quads, words = ImageDraw.Draw(image), ImageFont.load_default(20), [], []
    for number in range(560 // pitch):
        word = f"The quick brown fox jumps over the lazy dog, line {number}."
        canvas.text((60, 20 + pitch * number), word, (0, 0, 0), font)
        left, top, right, bottom = canvas.textbbox((60, 20 + pitch * number), word, font)
        quads.append([left, top, right, top, right, bottom, left, bottom])
        words.append(word)
    lines = TextRegions(quads, words, scores=[0.9] * len(words))
    pen = Pen.fitting(image.size)
    tags = placed_tags(drawn_items(lines, image.size, show_scores=True), image.size, pen, Typesetter(pen.letter_height))
    assert len(tags) == len(words)
    ink = np.asarray(image).max(axis=2) < 128
    for left, top, right, bottom in (np.round(tag.place).astype(int) for tag in tags):
        assert not ink[top:bottom, left:right].any(), (left, top, right, bottom)


def test_tags_of_a_crowd_are_inside_the_picture_and_apart():
    random, size = np.random.default_rng(1), (640, 480)
    corners = random.uniform(0, [600, 440], (30, 2))
    boxes = np.concatenate([corners, corners + random.uniform(8, 120, (30, 2))], axis=1)
    found = Detections(boxes, ["person", "car", "dog"] * 10, scores=random.uniform(0, 1, 30))
    pen = Pen.fitting(size)
    tags = placed_tags(drawn_items(found, size, show_scores=True), size, pen, Typesetter(pen.letter_height))
    assert len(tags) == 30
    covered = np.zeros((480, 640), int)
    for left, top, right, bottom in (np.round(tag.place).astype(int) for tag in tags):
        assert 0 <= left < right <= 640
        assert 0 <= top < bottom <= 480
        covered[top + 1 : bottom - 1, left + 1 : right - 1] += 1
    assert covered.max() == 1


def test_large_pictures_are_drawn_in_about_a_second(figure):
    image = Image.new("RGB", (4000, 3000), (90, 90, 90))
    corners = np.stack([np.arange(40) * 70, np.arange(40) * 50], axis=1)
    boxes = np.concatenate([corners, corners + 900], axis=1)
    turns = np.linspace(0, 2 * np.pi, 200)
    circles = [[1400 * np.stack([np.cos(turns), np.sin(turns)], axis=1) + (1000 * n, 1500)] for n in (1, 2, 3)]
    quads = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]] * [1, 1, 1, 1, 1, 0.5, 1, 0.5]
    results = {
        "40 boxes": Detections(boxes, [f"thing {n}" for n in range(40)]),
        "3 masks": Segmentation(circles, ["", "", ""]),
        "40 quads": TextRegions(quads, ["a line of text"] * 40),
    }
    for name, result in results.items():
        started = time.monotonic()
        assert draw(image, result).size == image.size
        figure(f"12 megapixels, {name}: seconds to draw", time.monotonic() - started)
