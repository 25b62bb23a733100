import numpy as np
import pytest
from florence2 import v1
from florence2.errors import InvalidArgumentError
from florence2.locations import (
    LOCATION_BINS,
    bins_to_pixels,
    check_region,
    location_tokens,
    pixels_to_bins,
    region_bins,
    usable_regions,
    width_and_height,
)
from hypothesis import given
from hypothesis import strategies as st

image_sizes = st.tuples(st.integers(1, 100_000), st.integers(1, 100_000))
edges = st.floats(width=32) | st.sampled_from([-1.0, -0.0, 0.0, 5.0, 1e-45])
points_of_unit_square = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1)


@given(image_sizes)
def test_the_center_of_every_bin_is_in_that_bin(image_size):
    bins = np.repeat(np.arange(LOCATION_BINS)[:, None], 2, axis=1)
    assert np.array_equal(pixels_to_bins(bins_to_pixels(bins, image_size), image_size), bins)


@given(points_of_unit_square, image_sizes)
def test_a_round_trip_moves_a_pixel_by_at_most_half_a_bin(points, image_size):
    pixels = np.array(points) * image_size
    there_and_back = bins_to_pixels(pixels_to_bins(pixels, image_size), image_size)
    bin_extent = np.array(image_size) / LOCATION_BINS
    assert (np.abs(there_and_back - pixels) <= 0.5 * bin_extent + 1e-2 * bin_extent).all()


@pytest.mark.parametrize(
    ("pixel", "location"),
    [(0, 0), (0.63, 0), (0.64, 1), (639.99, 999), (640, 999), (1e9, 999), (-1, 0)],
)
def test_pixels_are_floored_to_bins_and_clamped(pixel, location):
    assert pixels_to_bins([(pixel, pixel)], (640, 640)).tolist() == [[location, location]]


def test_bins_decode_to_float32_pixels_of_shape_n_by_2():
    pixels = bins_to_pixels([(0, 999), (499, 500)], v1.ImageSize(width=2000, height=1000))
    assert pixels.dtype == np.float32
    assert pixels.tolist() == [[1, 999.5], [999, 500.5]]
    assert bins_to_pixels([], (10, 10)).shape == (0, 2)


@pytest.mark.parametrize("image_size", [(0, 5), (5, -1), v1.ImageSize()])
def test_an_image_is_at_least_one_pixel(image_size):
    with pytest.raises(InvalidArgumentError, match=r"image_size: .* at least 1 x 1 pixels"):
        width_and_height(image_size)


@pytest.mark.parametrize("image_size", [None, 640, "ab", ("640", "480"), (640,), (1, 2, 3)])
def test_an_invalid_size_is_a_type_error(image_size):
    with pytest.raises(TypeError, match=r"^image_size: got .*, expected \(width, height\) in pixels"):
        width_and_height(image_size)


def test_a_size_may_be_an_array():
    assert width_and_height(np.array([640, 480])) == (640, 480)


def test_location_tokens_are_the_models():
    assert location_tokens((0, 52, 999)) == "<loc_0><loc_52><loc_999>"


def test_a_region_may_be_the_complete_image():
    region = v1.BoundingBox(x_min=0, y_min=0, x_max=640, y_max=480)
    assert region_bins(region, (640, 480)) == (0, 0, 999, 999)


def test_the_bins_of_a_region_are_left_top_right_bottom():
    region = v1.BoundingBox(x_min=64, y_min=120, x_max=320, y_max=240)
    assert region_bins(region, (640, 480)) == (100, 250, 500, 500)


@pytest.mark.parametrize(
    ("corners", "bins"),
    [
        ((-0.0001, 0, 640.00006, 480), (0, 0, 999, 999)),
        ((-1, -1, 641, 481), (0, 0, 999, 999)),
        ((639.5, 479.9, 641, 480.5), (999, 999, 999, 999)),
        ((-1, 0, 6.4, 4.8), (0, 0, 10, 10)),
    ],
)
def test_a_region_up_to_a_pixel_outside_is_clamped_to_the_image(corners, bins):
    assert region_bins(box(*corners), (640, 480)) == bins


@given(st.lists(st.tuples(edges, edges, edges, edges), max_size=5))
def test_usable_regions_are_those_that_pass_the_check(corners):
    boxes = np.array(corners, np.float32).reshape(-1, 4)
    usable = usable_regions(boxes)
    assert usable.dtype == bool
    assert usable.shape == (len(boxes),)
    for row, is_usable in zip(boxes.tolist(), usable.tolist(), strict=True):
        assert is_usable == passes(box(*row))


bins_of_boxes = st.tuples(*[st.integers(0, LOCATION_BINS - 1)] * 4)


@given(bins_of_boxes, image_sizes)
def test_every_usable_box_of_an_answer_can_be_sent_and_has_the_same_bins(bins, image_size):
    boxes = bins_to_pixels(bins, image_size).reshape(-1, 4)
    left, top, right, bottom = bins
    assert usable_regions(boxes).tolist() == [left < right and top < bottom]
    if left < right and top < bottom:
        sent = v1.BoundingBox.FromString(box(*boxes[0].tolist()).SerializeToString())
        assert region_bins(sent, image_size) == bins


def box(x_min, y_min, x_max, y_max) -> v1.BoundingBox:
    return v1.BoundingBox(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max)


def passes(region: v1.BoundingBox) -> bool:
    try:
        check_region(region)
    except InvalidArgumentError:
        return False
    return True


@pytest.mark.parametrize(
    ("corners", "message"),
    [
        ((-1.01, 0, 10, 10), r"box\.x_min: got -1\.0\d+, expected a finite number of pixels, at least -1"),
        ((0, float("nan"), 10, 10), r"box\.y_min: got nan, expected a finite"),
        ((0, 0, float("inf"), 10), r"box\.x_max: got inf, expected a finite"),
        ((10, 0, 5, 10), r"box\.x_max: got 5\.0, expected more than x_min, which is 10\.0"),
        ((0, 7, 10, 7), r"box\.y_max: got 7\.0, expected more than y_min, which is 7\.0"),
        ((0, 0, 641.01, 10), r"box\.x_max: got 641\.0\d+, expected at most 641, the image's width plus a pixel"),
        ((0, 0, 10, 1e9), r"box\.y_max: got 1000000000\.0, expected at most 481, the image's height plus a pixel"),
        ((640, 0, 640.5, 10), r"box\.x_min: got 640\.0, expected less than 640, the image's width"),
        ((0, 480.5, 10, 481), r"box\.y_min: got 480\.5, expected less than 480, the image's height"),
        ((-1, 0, -0.5, 10), r"box\.x_max: got -0\.5, expected more than 0, the image's edge"),
        ((0, -1, 10, 0), r"box\.y_max: got 0\.0, expected more than 0, the image's edge"),
    ],
)
def test_an_impossible_region_is_named_with_coordinate_value_and_limit(corners, message):
    with pytest.raises(InvalidArgumentError, match=f"^{message}"):
        region_bins(box(*corners), (640, 480), "box")
