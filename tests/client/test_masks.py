import numpy as np
import pytest
from florence2.errors import InvalidArgumentError
from florence2.results import Detections, Segmentation, TextRegions

SIZE = (40, 30)
TRIANGLE = [[5, 5], [15, 5], [5, 15]]
SQUARE = [[20, 10], [30, 10], [30, 20], [20, 20]]


def segment(*polygons) -> Segmentation:
    return Segmentation([list(polygons)], [""], image_size=SIZE)


def inside(mask) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the pixels in a mask, the latter two exclusive."""
    rows, columns = np.nonzero(mask)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_a_mask_has_the_pixels_whose_centers_are_inside():
    (mask,) = segment(SQUARE).masks()
    assert (mask.dtype, mask.shape) == (bool, (30, 40))
    assert (inside(mask), mask.sum()) == ((20, 10, 30, 20), 100)


def test_a_circle_has_the_area_of_a_circle():
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    (mask,) = segment(np.stack([20 + 8 * np.cos(angles), 15 + 8 * np.sin(angles)], axis=1)).masks()
    rows, columns = np.mgrid[:30, :40] + 0.5
    exact = (columns - 20) ** 2 + (rows - 15) ** 2 < 64
    assert (mask ^ exact).sum() <= 0.02 * exact.sum()


def test_the_polygons_of_an_item_are_one_mask():
    (both,) = segment(TRIANGLE, SQUARE).masks()
    (triangle,), (square,) = segment(TRIANGLE).masks(), segment(SQUARE).masks()
    assert np.array_equal(both, triangle | square)
    assert triangle.any()


def test_an_object_without_an_outline_has_the_mask_of_its_box():
    found = Detections([[20, 10, 30, 20], [0, 0, 4, 4]], ["a", "b"], polygons=[[TRIANGLE], []], image_size=SIZE)
    outlined, box = found.masks()
    assert np.array_equal(outlined, segment(TRIANGLE).masks()[0])
    assert (inside(box), box.sum()) == ((0, 0, 4, 4), 16)
    assert Detections([[30, 20, 20, 10]], ["inverted"], image_size=SIZE).masks().sum() == 100


def test_a_piece_of_text_has_the_mask_of_its_quad():
    masks = TextRegions([np.ravel(SQUARE)], ["OPEN"], image_size=SIZE).masks()
    assert np.array_equal(masks, segment(SQUARE).masks())


@pytest.mark.parametrize("scale", [1, 70, 150])
def test_large_polygons_are_as_exact_as_memory_allows(scale):
    (mask,) = Segmentation([[np.multiply(SQUARE, scale)]], [""]).masks((40 * scale, 30 * scale))
    assert mask.sum() == pytest.approx(100 * scale**2, rel=0.001)


@pytest.mark.parametrize(
    ("polygon", "pixels"),
    [
        ([], 0),
        ([[5, 5]], 0),
        ([[5, 5], [15, 15]], 0),
        ([[5, 5], [15, 5], [np.nan, 15]], 0),
        ([[5, 5], [15, 5], [np.inf, 15]], 0),
        ([[100, 100], [200, 100], [200, 200]], 0),
        ([[-50, -50], [-10, -50], [-10, -10]], 0),
        ([[-10, -10], [1e30, -10], [1e30, 1e30], [-10, 1e30]], 1200),
        ([[35, 25], [60, 25], [60, 60], [35, 60]], 25),
    ],
)
def test_odd_polygons_are_clipped_or_empty(polygon, pixels):
    assert segment(np.reshape(polygon, (-1, 2))).masks().sum() == pixels


def test_the_size_may_be_given_and_must_be_known():
    unsized = Segmentation([[SQUARE]], [""])
    assert unsized.masks((50, 60)).shape == (1, 60, 50)
    with pytest.raises(InvalidArgumentError, match="image_size: got None, expected"):
        unsized.masks()
    assert Segmentation.empty().masks(SIZE).shape == (0, 30, 40)
