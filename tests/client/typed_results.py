"""What users write, which mypy must accept with --strict (`make lint`). tests/lint/test_types.py runs it, too."""

from typing import Any, assert_type

import florence2
import numpy as np
import numpy.typing as npt
from florence2.results import Detection, Detections, Segment, Segmentation, Text, TextRegion, TextRegions


def confident(found: Detections) -> Detections:
    chosen: Detections = found[found.scores > 0.5]
    return chosen


def confident_objects(found: Detections) -> list[Detection]:
    return [item for item in found if item.score > 0.5 and item.label_score >= 0.5]


def best_words(words: TextRegions) -> TextRegions:
    return words[(words.scores > 0.5) & (words.label_scores > 0.5)]


def clear_outlines(outlines: Segmentation) -> Segmentation:
    return outlines[outlines.scores > 0.5].filtered(min_score=0.6, max_items=3, labels=[""])


def with_known_scores(found: Detections) -> Detections:
    return found if found.scores is None else found.above(0.5)


def every_kind_of_index(found: Detections, words: TextRegions, outlines: Segmentation) -> None:
    assert_type(found[0], Detection)
    assert_type(words[0], TextRegion)
    assert_type(outlines[0], Segment)
    assert_type(found[:2], Detections)
    assert_type(found[[0, 1]], Detections)
    assert_type(found[[True, False]], Detections)
    assert_type(found[found.usable], Detections)
    assert_type(found.above(0.5), Detections)
    assert_type(found.masks(), npt.NDArray[np.bool_])
    assert_type(found.image_size, tuple[int, int] | None)
    assert_type(found.to_dict(), dict[str, Any])
    assert_type(found.to_json(), str)


def main() -> None:
    boxes = np.array([[0, 0, 4, 4], [1, 1, 3, 3]], np.float32)
    scores = np.array([0.9, 0.1], np.float32)
    found = Detections(boxes, ["dog", "cat"], scores, label_scores=scores, image_size=(4, 4))
    words = TextRegions(np.zeros((2, 8), np.float32), ["A", "B"], scores, scores)
    outlines = Segmentation([[], []], ["", ""], scores)
    every_kind_of_index(found, words, outlines)
    kept = (confident(found), confident_objects(found), best_words(words), clear_outlines(outlines))
    assert [len(each) for each in kept] == [1, 1, 1, 1]
    assert with_known_scores(found) == confident(found)
    assert Text("a dog", 0.9).score > 0.5
    assert florence2.__version__.split(".")


if __name__ == "__main__":
    main()
