"""Results as supervision has them."""

import sys

import numpy as np
import pytest
from florence2.errors import InvalidArgumentError
from florence2.results import Detections, Segmentation, TextRegions

# supervision works without OpenCV, and says so when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:OpenCV")

SIZE = (40, 30)
TRIANGLE = [[5, 5], [15, 5], [5, 15]]


def test_boxes_scores_and_labels():
    found = Detections([[1, 2, 3, 4], [9, 8, 7, 6], [0, 0, 5, 5]], ["dog", "cat", "dog"], [0.9, 0.5, 0.1])
    converted = found.to_supervision()
    assert converted.xyxy.tolist() == [[1, 2, 3, 4], [7, 6, 9, 8], [0, 0, 5, 5]]
    assert converted.confidence.tolist() == found.scores.tolist()
    assert converted.class_id.tolist() == [1, 0, 1]
    assert converted["class_name"].tolist() == found.labels
    assert converted.mask is None


def test_polygons_become_masks_with_their_scores():
    found = Detections([[5, 5, 15, 15]], ["a dog"], [0.5], polygons=[[TRIANGLE]], image_size=SIZE)
    converted = found.to_supervision()
    assert np.array_equal(converted.mask, found.masks())
    assert (converted.confidence.tolist(), converted["class_name"].tolist()) == ([0.5], ["a dog"])
    assert converted.area.tolist() == [found.masks().sum()]


def test_outlines_become_masks_and_the_boxes_around_them():
    outlines = Segmentation([[TRIANGLE, [[20, 20], [25, 20], [25, 28]]], []], ["", ""], [0.5, 0.25], image_size=SIZE)
    converted = outlines.to_supervision()
    assert converted.xyxy.tolist() == [[5, 5, 25, 28], [0, 0, 0, 0]]
    assert np.array_equal(converted.mask, outlines.masks())
    assert converted.confidence.tolist() == [0.5, 0.25]


def test_texts_keep_their_quads():
    quad = [1, 2, 9, 1, 10, 5, 2, 6]
    converted = TextRegions([quad], ["CAFE"], [0.5]).to_supervision()
    assert converted.xyxy.tolist() == [[1, 1, 10, 6]]
    assert converted["xyxyxyxy"].tolist() == [np.reshape(quad, (4, 2)).tolist()]
    assert converted["class_name"].tolist() == ["CAFE"]


def test_unknown_scores_and_no_items_are_converted():
    assert Detections([[1, 2, 3, 4]], [""]).to_supervision().confidence is None
    for empty in (Detections.empty().to_supervision(), TextRegions.empty().to_supervision()):
        assert (len(empty), empty.xyxy.shape) == (0, (0, 4))
    assert len(Segmentation.empty().to_supervision(SIZE)) == 0


def test_masks_need_a_size_which_may_be_given():
    outlined = Detections([[5, 5, 15, 15]], ["dog"], polygons=[[TRIANGLE]])
    assert outlined.to_supervision((20, 25)).mask.shape == (1, 25, 20)
    with pytest.raises(InvalidArgumentError, match="image_size: got None"):
        outlined.to_supervision()


def test_doubles_are_suppressed_by_supervision():
    boxes = [[0, 0, 10, 10], [1, 0, 10, 10], [1, 0, 10, 10], [20, 20, 30, 30]]
    found = Detections(boxes, ["dog", "dog", "cat", "dog"], [0.5, 0.9, 0.4, 0.1])
    kept = found.to_supervision().with_nms(threshold=0.5)
    assert sorted(kept.confidence.tolist()) == np.float32([0.1, 0.4, 0.9]).tolist()


def test_without_supervision_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match=r'pip install "florence2-triton\[supervision\]"'):
        Detections.empty().to_supervision()
