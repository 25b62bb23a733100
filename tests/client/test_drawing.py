import base64
import io

import numpy as np
import pytest
from florence2 import Detections, Segmentation, Text, TextRegions, draw
from florence2.drawing.items import drawn_items, percentage
from florence2.errors import InvalidArgumentError
from PIL import Image

SIZE = (320, 240)
BACKGROUNDS = {"dark": (0, 0, 0), "light": (255, 255, 255), "gray": (128, 128, 128)}


def plain(color=(128, 128, 128), size=SIZE) -> Image.Image:
    return Image.new("RGB", size, color)


def changed(image: Image.Image, drawn: Image.Image) -> np.ndarray:
    """A mask of shape (H, W) of the pixels in which two pictures of the same size differ."""
    return (np.asarray(image) != np.asarray(drawn)).any(axis=2)


def colors(pixels) -> set[tuple[int, int, int]]:
    return {tuple(pixel) for pixel in np.asarray(pixels).reshape(-1, 3).tolist()}


def line_color(label: str, *others: str) -> tuple[int, int, int]:
    """The color of a label's box, in the middle of its right edge."""
    boxes = [[40, 60, 120, 160], *([200, 60, 280, 160] for _ in others)]
    return draw(plain(), Detections(boxes, [label, *others])).getpixel((120, 110))


def test_a_box_is_drawn_only_on_its_edges_and_its_tag():
    drawn = changed(plain(), draw(plain(), Detections([[40, 60, 120, 160]], [""])))
    for x, y in [(40, 110), (120, 110), (80, 60), (80, 160)]:
        assert drawn[y, x]
    drawn[56:165, 36:125] = False
    assert not drawn.any()


def test_the_inside_of_a_polygon_is_tinted_but_not_that_of_a_box():
    square = np.array([[40, 60], [120, 60], [120, 160], [40, 160]])
    box = Detections([[40, 60, 120, 160]], [""])
    outlined = Detections([[40, 60, 120, 160]], [""], polygons=[[square]])
    assert not changed(plain(), draw(plain(), box))[70:150, 50:110].any()
    assert changed(plain(), draw(plain(), outlined))[70:150, 50:110].all()
    assert changed(plain(), draw(plain(), Segmentation([[square]], [""])))[70:150, 50:110].all()


@pytest.mark.parametrize("background", BACKGROUNDS.values(), ids=BACKGROUNDS)
def test_lines_and_letters_stand_out_from_any_background(background):
    image = plain(background)
    drawn = np.asarray(draw(image, Detections([[40, 60, 120, 160]], ["dog"])), dtype=int)
    contrast = np.abs(drawn - np.array(background)).max(axis=2)
    assert contrast[110, 117:124].max() > 100  # the right edge
    tag = drawn[45:58, 42:60].reshape(-1, 3).mean(axis=1)
    assert tag.max() - tag.min() > 100


def test_a_label_has_the_same_color_in_every_picture():
    assert line_color("dog") == line_color("dog") == line_color("dog", "cat")


def test_labels_of_one_picture_have_different_colors():
    names = ["dog", "cat", "car", "person", "tree", "a", "b", "c"]
    boxes = [[40, 20 + 25 * row, 120, 40 + 25 * row] for row in range(len(names))]
    drawn = draw(plain(), Detections(boxes, names))
    assert len({drawn.getpixel((120, 30 + 25 * row)) for row in range(len(names))}) == len(names)


@pytest.mark.parametrize("box", [[0, 0, 60, 50], [260, 190, 320, 240], [0, 190, 60, 240], [260, 0, 320, 50]])
def test_lines_and_tags_of_boxes_at_the_edges_stay_inside_the_picture(box):
    bare = draw(plain(), Detections([box], [""]))
    drawn = draw(plain(), Detections([box], ["a long label"]))
    tag = np.argwhere(changed(bare, drawn))
    assert np.ptp(tag, axis=0).min() > 10  # high enough for letters
    x, y = np.clip([box[0], (box[1] + box[3]) // 2], 1, np.array(SIZE) - 2)
    assert changed(plain(), bare)[y, x]


def test_an_inverted_box_is_drawn_like_the_box():
    upright, inverted = [40, 60, 120, 160], [120, 160, 40, 60]
    drawn = draw(plain(), Detections([inverted], ["dog"]))
    assert np.array_equal(changed(plain(), drawn), changed(plain(), draw(plain(), Detections([upright], ["dog"]))))


def test_tags_of_boxes_in_one_place_do_not_hide_each_other():
    image = plain(size=(640, 480))
    box = [200, 200, 400, 400]
    palette = [line_color("dog"), line_color("cat")]
    pixels = np.asarray(draw(image, Detections([box, box], ["dog", "cat"])))
    areas = [(pixels == color).all(axis=2).sum() for color in palette]
    assert min(areas) > 200


def test_scores_are_written_on_the_tag_unless_they_are_not_wanted():
    bare, boxes = Detections([[40, 60, 120, 160]], ["dog"]), [[40, 60, 120, 160]]
    scored = Detections(boxes, ["dog"], scores=[0.87])
    assert changed(draw(plain(), bare), draw(plain(), scored)).any()
    assert draw(plain(), scored, show_scores=False) == draw(plain(), bare)
    assert draw(plain(), Detections(boxes, ["dog"], scores=[np.nan])) == draw(plain(), bare)


@pytest.mark.parametrize(
    ("score", "text"),
    [
        *((0.924, "92 %"), (0.0, "0 %"), (0.001, "<1 %"), (0.998, "99 %"), (0.9996, "100 %"), (1.0, "100 %")),
        *((None, ""), (float("nan"), ""), (-1.0, "0 %"), (7.0, "100 %")),
    ],
)
def test_scores_are_percentages_and_only_a_perfect_one_is_100(score, text):
    assert percentage(score) == text


def test_proposals_are_numbered_without_scores():
    boxes = [[20, 60, 90, 160], [120, 60, 190, 160], [220, 60, 290, 160]]
    proposals = Detections(boxes, [""] * 3, scores=[0.08, 0.2, 0.3])
    assert [(item.label, item.score) for item in drawn_items(proposals, SIZE, show_scores=True)] == [
        ("1", ""),
        ("2", ""),
        ("3", ""),
    ]
    assert draw(plain(), proposals) == draw(plain(), Detections(boxes, ["1", "2", "3"]))


def test_a_label_of_invisible_characters_is_no_label():
    boxes = [[40, 60, 120, 160], [200, 60, 280, 160]]
    invisible = draw(plain(), Detections(boxes, ["\u200b", "\ufeff\xad"]))
    assert invisible == draw(plain(), Detections(boxes, ["", ""]))


def test_more_labels_than_colors_can_be_drawn_even_if_they_differ_only_in_what_no_text_may_contain():
    labels = [*map(str, range(12)), "\ud800", "\udfff"]
    assert draw(plain(), Detections([[40, 60, 120, 160]] * 14, labels)).size == SIZE


def test_numbers_count_the_items_that_cannot_be_drawn():
    proposals = Detections([[20, 60, 90, 160], [np.nan] * 4, [220, 60, 290, 160]], [""] * 3)
    assert [item.label for item in drawn_items(proposals, SIZE, show_scores=True)] == ["1", "3"]


@pytest.mark.parametrize("result", [Detections.empty(), Segmentation.empty(), TextRegions.empty(), Text("  \n")])
def test_an_empty_result_leaves_the_picture_unchanged(result):
    image = plain()
    drawn = draw(image, result)
    assert not changed(image, drawn).any()
    assert drawn is not image


def test_the_given_image_is_not_modified():
    image = plain()
    draw(image, Detections([[40, 60, 120, 160]], ["dog"]))
    assert colors(image) == {(128, 128, 128)}


def test_text_is_on_a_strip_below_the_picture():
    image = plain()
    drawn = draw(image, Text("A dog lies on a mat. " * 20))
    assert drawn.width == image.width
    assert not changed(image, drawn.crop((0, 0, *SIZE))).any()
    strip = np.asarray(drawn.crop((0, SIZE[1], *drawn.size)))
    assert (strip == 0).any()
    assert (strip[:, -1] == 255).all()  # no word extends beyond the edge
    assert drawn.height > draw(image, Text("A dog.")).height > image.height


@pytest.mark.parametrize(
    "words", ["日本語 naïve \N{DOG}", "\0\x1b\ud800", "\u200b\xad", "\u200d", "x" * 500, "a\n\nb", "\n", "{} %s", ""]
)
@pytest.mark.parametrize("size", [SIZE, (1, 1), (8, 300)])
def test_any_text_can_be_drawn_on_any_picture(words, size):
    drawn = draw(plain(size=size), Text(words))
    assert drawn.mode == "RGB"
    assert drawn.width >= size[0]
    regions = TextRegions([[1, 1, 9, 1, 9, 5, 1, 5]], [words])
    assert draw(plain(size=size), regions).size == size


@pytest.mark.parametrize(
    "vertices", [[], [[5, 5]], [[5, 5], [50, 50]], [[-50, -50], [900, 20], [30, 900]], [[320, 0], [320, 9], [320, 240]]]
)
def test_odd_polygons_can_be_drawn(vertices):
    outline = np.array(vertices, np.float32).reshape(-1, 2)
    assert draw(plain(), Segmentation([[outline], []], ["dog", "cat"])).size == SIZE


STRANGE = [np.nan, np.inf, -np.inf, 1e30, -1e30, 3e38, 0.0, -5.0, 160.0]


def test_strange_coordinates_are_drawn_inside_the_picture_or_not_at_all():
    random = np.random.default_rng(0)
    for _ in range(100):
        boxes, quads = random.choice(STRANGE, (3, 4)), random.choice(STRANGE, (3, 8))
        polygons = [[random.choice(STRANGE, (random.integers(0, 5), 2))] for _ in range(3)]
        results = [Detections(boxes, ["dog", "", "\ud800"]), TextRegions(quads, ["dog", "", "cat"])]
        for result in (*results, Segmentation(polygons, [""] * 3), Detections(boxes, ["a"] * 3, polygons=polygons)):
            assert draw(plain(size=(100, 80)), result).size == (100, 80)


@pytest.mark.parametrize("box", [[np.nan, 10, 50, 60], [400, 10, 500, 60], [10, -90, 50, -20]])
def test_boxes_with_nan_or_outside_the_picture_are_left_out(box):
    assert draw(plain(), Detections([box], ["dog"])) == plain()


def test_an_infinite_box_is_clipped_to_the_picture():
    infinite = Detections([[-np.inf, 60, np.inf, 160]], ["dog"])
    assert draw(plain(), infinite) == draw(plain(), Detections([[0, 60, 320, 160]], ["dog"]))


def test_a_huge_polygon_is_clipped_without_changing_its_shape():
    corner = np.array([[0, 0], [1e6, 0], [0, 1e6]])  # covers the picture, as the square does
    square = np.array([[0, 0], [320, 0], [320, 240], [0, 240]])
    pictures = [draw(plain(), Segmentation([[polygon]], [""])) for polygon in (corner, square)]
    assert not changed(*pictures).any()


def encoded(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def test_draw_accepts_every_form_of_image_that_a_client_accepts(tmp_path):
    image = plain((10, 20, 30))
    path = tmp_path / "image.png"
    path.write_bytes(encoded(image))
    text = base64.b64encode(encoded(image))
    box = Detections([[40, 60, 120, 160]], ["dog"])
    expected = draw(image, box)
    sources = [path, str(path), encoded(image), bytearray(encoded(image)), io.BytesIO(encoded(image)), text]
    sources += [f"data:image/png;base64,{text.decode()}", np.asarray(image), np.asarray(image.convert("RGBA"))]
    for source in (*sources, image.convert("RGBA"), image.convert("RGB").quantize(2)):
        assert draw(source, box) == expected
    assert draw(np.full((240, 320), 128, np.uint8), box) == draw(plain(), box)


def transparent_ink(mode: str) -> Image.Image:
    """A black image, opaque only in its left half."""
    ink = Image.new("RGBA", SIZE)
    ink.paste((0, 0, 0, 255), (0, 0, SIZE[0] // 2, SIZE[1]))
    if mode != "P":
        return ink.convert(mode)
    palette = ink.getchannel("A").point(lambda alpha: alpha and 1).convert("P")
    palette.putpalette([0, 0, 0, 0, 0, 0])
    palette.info["transparency"] = 0
    return palette


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGBa", "P"])
@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "GIF", "picture", "array"])
def test_transparency_is_composited_on_white(mode, form):
    ink = transparent_ink(mode)
    if form == "array":
        source = np.asarray(ink.convert("RGBA"))
    elif form == "picture":
        source = ink
    else:
        file = io.BytesIO()
        (ink if mode == "P" and form in ("PNG", "GIF") else ink.convert("RGBA")).save(file, form, lossless=True)
        source = file.getvalue()
    drawn = draw(source, Detections.empty())
    assert [drawn.getpixel((x, 100)) for x in (10, 310)] == [(0, 0, 0), (255, 255, 255)]


def test_16_bit_gray_is_shown_in_8_bits():
    gray = Image.fromarray(np.full(SIZE[::-1], 128 * 257, np.uint16))
    assert colors(draw(gray, Detections.empty())) == {(128, 128, 128)}
    assert colors(draw(encoded(gray), Detections.empty())) == {(128, 128, 128)}


@pytest.mark.parametrize("mode", ["I", "F"])
def test_modes_that_cannot_be_shown_are_rejected(mode):
    with pytest.raises(InvalidArgumentError, match=f"pixels of mode {mode}"):
        draw(Image.new(mode, SIZE), Detections.empty())


def test_the_orientation_of_a_file_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    assert draw(encoded(plain(), exif=exif), Detections.empty()).size == SIZE[::-1]


def test_an_invalid_font_is_an_error(tmp_path):
    path = tmp_path / "font.ttf"
    path.write_bytes(b"no font")
    with pytest.raises(OSError, match="unknown file format"):
        draw(plain(), Text("a dog"), font=path)


def test_very_small_pictures_get_thin_lines_and_no_tags():
    tiny = plain(size=(8, 8))
    drawn = changed(tiny, draw(tiny, Detections([[2, 2, 6, 6]], ["dog"])))
    assert drawn.sum() == 20  # a ring, one pixel wide
    assert not drawn[2:6, 2:6].any()
    assert draw(tiny, Text("a dog on a mat")).width > 100


def test_tags_do_not_hide_small_pictures():
    small = plain(size=(40, 40))
    assert changed(small, draw(small, Detections([[8, 12, 30, 34]], ["a long label"]))).mean() < 0.5


def test_letters_and_lines_of_a_panorama_fit_its_height():
    panorama = plain(size=(3000, 90))
    drawn = changed(panorama, draw(panorama, Detections([[300, 30, 900, 70]], ["train"])))
    assert not drawn[40:60, 350:850].any()
    assert drawn[:30].any(axis=1).sum() > 10
