"""The COCO export, read by pycocotools."""

import json

import numpy as np
import pytest
from florence2.coco import coco_dataset, coco_predictions
from florence2.errors import InvalidArgumentError
from florence2.results import Detections, Segmentation, Text, TextRegions
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SIZE = (40, 30)
TRIANGLE = [[5, 5], [15, 5], [5, 15]]
QUAD = [1, 2, 9, 1, 10, 5, 2, 6]


def found(*labels: str, scores=(0.9, 0.5)) -> Detections:
    boxes = [[1, 2, 11, 22], [20, 15, 10, 5]][: len(labels)]
    return Detections(boxes, list(labels), scores[: len(labels)], image_size=SIZE)


@pytest.fixture
def loaded(tmp_path):
    """`loaded(dataset)`: as pycocotools reads it from a file."""

    def loaded(dataset):
        path = tmp_path / "dataset.json"
        path.write_text(json.dumps(dataset, allow_nan=False))
        return COCO(path)

    return loaded


def test_a_dataset_has_images_categories_and_annotations(loaded):
    dataset = coco_dataset([("a.jpg", found("dog", "cat")), ("b.jpg", found("dog"))])
    assert dataset["images"] == [
        {"id": 1, "file_name": "a.jpg", "width": 40, "height": 30},
        {"id": 2, "file_name": "b.jpg", "width": 40, "height": 30},
    ]
    assert dataset["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    coco = loaded(dataset)
    first, second = coco.loadAnns(coco.getAnnIds(imgIds=1))
    assert (first["bbox"], first["area"], first["score"]) == ([1, 2, 10, 20], 200, 0.9)
    assert (second["bbox"], second["area"], second["category_id"]) == ([10, 5, 10, 10], 100, 1)
    assert coco.annToMask(second).sum() == 100
    assert len(coco.getAnnIds(catIds=coco.getCatIds(catNms=["dog"]))) == 2


def test_outlines_are_polygons(loaded):
    outlined = Detections(
        [[0, 0, 9, 9]], ["dog"], polygons=[[TRIANGLE, [[20, 20], [25, 20], [25, 28]]]], image_size=SIZE
    )
    coco = loaded(coco_dataset([("a.jpg", outlined)]))
    (annotation,) = coco.loadAnns(coco.getAnnIds())
    assert annotation["segmentation"] == [np.ravel(TRIANGLE).tolist(), [20, 20, 25, 20, 25, 28]]
    assert (annotation["bbox"], annotation["area"]) == ([5, 5, 20, 23], 70)
    assert coco.annToMask(annotation).sum() == pytest.approx(70, abs=7)
    assert "score" not in annotation


def test_texts_keep_their_words(loaded):
    coco = loaded(coco_dataset([("a.jpg", TextRegions([QUAD], ["CAFE"], [0.5], image_size=SIZE))]))
    (annotation,) = coco.loadAnns(coco.getAnnIds(catIds=coco.getCatIds(catNms=["text"])))
    assert (annotation["text"], annotation["segmentation"], annotation["score"]) == ("CAFE", [QUAD], 0.5)


def test_categories_may_be_given_and_leave_out_others():
    dataset = coco_dataset([("a.jpg", found("dog", "cat"))], categories=["person", "dog"])
    assert [category["name"] for category in dataset["categories"]] == ["person", "dog"]
    assert [annotation["category_id"] for annotation in dataset["annotations"]] == [2]


def test_predictions_are_evaluated_against_a_dataset(loaded, capsys):
    truth = loaded(coco_dataset([("a.jpg", found("dog", "cat")), ("b.jpg", found("dog"))]))
    ids = {category["name"]: category["id"] for category in truth.dataset["categories"]}
    predicted = coco_predictions([(1, found("dog", "bird")), (2, found("dog"))], ids)
    for kind in ("bbox", "segm"):
        evaluation = COCOeval(truth, truth.loadRes(predicted), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert evaluation.stats[0] == pytest.approx(0.5, abs=0.01)  # all of the dogs, none of the cats
    assert capsys.readouterr().out


def test_items_without_an_area_are_left_out():
    odd = Segmentation([[], [[[1, 1], [2, 2]]], [[[1, np.nan], [2, 2], [3, 3]]], [TRIANGLE]], [""] * 4, image_size=SIZE)
    assert len(coco_dataset([("a.jpg", odd)])["annotations"]) == 1
    assert coco_dataset([]) == {"images": [], "categories": [], "annotations": []}


def test_what_cannot_be_exported_is_named():
    with pytest.raises(
        InvalidArgumentError, match=r"images: got 'a\.jpg', expected a result that knows its image's size"
    ):
        coco_dataset([("a.jpg", Detections.empty())])
    with pytest.raises(TypeError, match="images: got Text"):
        coco_dataset([("a.jpg", Text("a dog"))])
    with pytest.raises(InvalidArgumentError, match="images: got 7, expected a result with known scores"):
        coco_predictions([(7, Detections([[0, 0, 1, 1]], ["dog"]))], {"dog": 1})
