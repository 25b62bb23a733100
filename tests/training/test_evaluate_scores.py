"""`training.evaluate_scores`: its measures, its pictures, and its figures for a few scenes."""

import json

import numpy as np
import pytest
from florence2 import Client, Detections
from florence2_server.in_process import InProcess
from PIL import Image

from tests.conftest import DEMO_CHECKPOINT
from training.demo.metrics import Found
from training.demo.sampling import sample_scene
from training.demo.scenes import draw
from training.evaluate_scores.__main__ import main
from training.evaluate_scores.degradation import degraded
from training.evaluate_scores.evaluation import figures, judged, run
from training.evaluate_scores.measures import auroc, average_precision, calibration, calibration_error, judge
from training.evaluate_scores.pictures import coco_pictures, scene_pictures

TRUTH = Found(["dog", "cat"], [(0, 0, 100, 100), (200, 0, 300, 100)])


def test_a_detection_is_right_if_label_and_box_are_and_the_object_is_not_found_twice():
    boxes = [[0, 0, 100, 60], [0, 0, 100, 90], [200, 0, 300, 100], [200, 0, 300, 49]]
    judged = judge(TRUTH, Detections(boxes, ["dog", "dog", "dog", "cat"]))
    assert judged.is_right.tolist() == [False, True, False, False]


def test_auroc_is_the_share_of_pairs_in_order_and_ties_count_half():
    scores, is_right = np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False])
    assert auroc(scores, is_right) == (1 + 1 + 0.5 + 1) / 4
    assert auroc(1 - scores, is_right) == 0.5 / 4
    assert np.isnan(auroc(scores, np.ones(4, bool)))


def test_the_calibration_error_is_the_mean_distance_of_a_bins_score_from_its_share_of_right_ones():
    scores, is_right = np.array([0.85, 0.85, 0.25, 1.0]), np.array([True, False, False, True])
    assert calibration_error(scores, is_right) == pytest.approx((2 * 0.35 + 0.25 + 0) / 4)
    assert [count for count, *_ in calibration(scores, is_right)] == [0, 0, 1, 0, 0, 0, 0, 0, 2, 1]


def test_average_precision_is_higher_if_wrong_detections_have_lower_scores():
    boxes = [[200, 0, 300, 100], [500, 0, 600, 100], [0, 0, 100, 100]]
    judged = [judge(TRUTH, Detections(boxes, ["cat", "dog", "dog"]))]
    good, bad = (average_precision(judged, [np.array(scores)], ["cat", "dog"]) for scores in ([1, 0, 1], [1, 1, 0]))
    assert (good, bad) == pytest.approx((1, 0.75))


@pytest.mark.parametrize("seed", range(3))
def test_degradation_is_deterministic_and_keeps_the_size(seed):
    image = draw(sample_scene(seed))
    assert degraded(image, seed) == degraded(image, seed) != image
    assert degraded(image, seed).size == image.size


def test_a_coco_file_is_read_without_crowds(tmp_path):
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    content = {
        "images": [{"id": 7, "file_name": "a.png"}],
        "categories": [{"id": 3, "name": "dog"}],
        "annotations": [
            {"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4]},
            {"image_id": 7, "category_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 1},
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    (picture,) = coco_pictures(tmp_path / "coco.json", tmp_path)
    assert picture.truth == Found(["dog"], [(1, 2, 4, 6)])


def test_a_file_that_is_not_coco_is_named(tmp_path):
    (tmp_path / "coco.json").write_text("[]")
    with pytest.raises(ValueError, match=r"coco\.json: not a COCO detection file"):
        list(coco_pictures(tmp_path / "coco.json", tmp_path))


def test_scores_of_the_demo_are_high_for_right_boxes_and_low_for_wrong_ones():
    """On a few of the scenes that choices were made on; `make evaluate-scores` has the targets, on others."""
    with Client(transport=InProcess(DEMO_CHECKPOINT, device="cpu")) as client:
        answers = list(run(client, scene_pictures(50_000, 20), "<OD>"))
    found = {figure.name: figure.value for figure in figures(judged(answers))}
    assert found["wrong detections"] > 0
    assert found["median score of right detections"] > 0.9
    assert found["AUROC"] > 0.85
    assert found["expected calibration error"] < 0.1 < found["expected calibration error of likelihoods"]


def test_the_command_evaluates_a_coco_file(tmp_path, capsys):
    scene = sample_scene(50_001)
    draw(scene).save(tmp_path / "a.png")
    names = sorted({shape.label for shape in scene.shapes})
    boxes = [(shape.label, shape.box) for shape in scene.shapes]
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": index, "name": name} for index, name in enumerate(names)],
        "annotations": [
            {
                "image_id": 1,
                "category_id": names.index(label),
                "bbox": [box.left, box.top, box.right - box.left, box.bottom - box.top],
            }
            for label, box in boxes
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    assert main(["--coco", str(tmp_path / "coco.json")]) == 0
    printed = capsys.readouterr().out
    assert "AUROC" in printed
    assert "score above" in printed
