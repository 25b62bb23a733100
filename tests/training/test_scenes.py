from itertools import combinations

import numpy as np
import pytest

from training.demo.sampling import HELD_OUT_SEEDS, TRAINING_SEEDS, Limits, sample_scene
from training.demo.scenes import (
    BACKGROUNDS,
    COLORS,
    Box,
    Shape,
    bin_of,
    draw,
    zone,
)


def test_drawing_depends_on_the_seed_alone():
    first, second = (np.asarray(draw(sample_scene(7))) for _ in range(2))
    assert np.array_equal(first, second)
    assert sample_scene(7) != sample_scene(8)


def test_held_out_scenes_are_never_trained_on():
    assert HELD_OUT_SEEDS.stop <= TRAINING_SEEDS.start


def test_objects_are_separate_and_inside_the_canvas():
    for seed in range(200):
        scene = sample_scene(seed)
        boxes = [item.box for item in (*scene.shapes, *scene.words)]
        assert all(a.apart(b, 1) for a, b in combinations(boxes, 2))
        for box in boxes:
            assert 0 <= box.left < box.right <= scene.width
            assert 0 <= box.top < box.bottom <= scene.height


def test_the_image_shows_the_scene():
    for seed in range(50):
        scene = sample_scene(seed)
        pixels = np.asarray(draw(scene))
        for shape in scene.shapes:
            rows, columns = np.nonzero((pixels == COLORS[shape.color]).all(axis=2))
            inside = (columns >= shape.box.left) & (columns < shape.box.right)
            inside &= (rows >= shape.box.top) & (rows < shape.box.bottom)
            assert inside.sum() > 0.4 * (shape.box.right - shape.box.left) ** 2
        for word in scene.words:
            rows, columns = np.nonzero(ink_of(pixels, scene, word.box))
            slack = 0.15 * word.font_size
            assert rows.min() <= slack
            assert rows.max() >= word.box.bottom - word.box.top - slack
            assert columns.min() <= slack
            assert columns.max() >= word.box.right - word.box.left - slack


def ink_of(pixels, scene, box):
    inside = pixels[box.top : box.bottom, box.left : box.right]
    return (inside != BACKGROUNDS[scene.background]).any(axis=2)


def test_limits_restrict_the_objects_of_a_scene():
    scenes = [sample_scene(seed, Limits(shapes=1, words=0)) for seed in range(50)]
    assert {len(scene.shapes) for scene in scenes} == {1}
    assert not any(scene.words for scene in scenes)


@pytest.mark.parametrize(("pixel", "side", "expected"), [(0, 640, 0), (320, 640, 500), (640, 640, 999), (-3, 640, 0)])
def test_bins_are_thousandths_clamped_at_the_ends(pixel, side, expected):
    assert bin_of(pixel, side) == expected


def test_zones_are_named_after_thirds():
    scene = sample_scene(0)
    middle = Box(scene.width // 2, scene.height // 2, scene.width // 2 + 2, scene.height // 2 + 2)
    assert zone(scene, middle) == "center"
    assert zone(scene, Box(0, 0, 2, 2)) == "upper left"


def test_polygons_start_at_the_top_and_run_clockwise():
    box = Box(0, 0, 10, 10)
    assert Shape("square", "red", "small", box).polygon() == [(0, 0), (10, 0), (10, 10), (0, 10)]
    assert Shape("triangle", "red", "small", box).polygon() == [(5, 0), (10, 10), (0, 10)]
    assert Shape("circle", "red", "small", box).polygon()[:3:2] == [(5, 0), (10, pytest.approx(5))]
