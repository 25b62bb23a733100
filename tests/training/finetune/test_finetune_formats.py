import json

import PIL.Image
import pytest

from training.finetune.coco import detection_answer
from training.finetune.errors import DataError, SettingError
from training.finetune.examples import Example, split
from training.finetune.formats import read_examples

LINE = {"image": "a.png", "prompt": "<DocVQA>What is the total?", "answer": "12"}


def test_a_line_of_jsonl_is_an_example(write_jsonl):
    file = write_jsonl(LINE, "", {"image": "a.png", "prefix": "<OD>", "suffix": ["cat", "kitten"]})
    image = file.parent / "a.png"
    assert read_examples(str(file), "data") == [
        Example(image, "<DocVQA>What is the total?", ("12",), "train.jsonl:1"),
        Example(image, "<OD>", ("cat", "kitten"), "train.jsonl:3"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "train.jsonl:2: line: got '{', expected JSON"),
        ([1], "train.jsonl:2: line: got [1], expected a JSON object with image, prompt and answer"),
        ({**LINE, "image": 3}, "train.jsonl:2: image: got 3, expected the name of an image file"),
        ({**LINE, "image": "b.png"}, "train.jsonl:2: image: got 'b.png', expected an existing file"),
        ({**LINE, "prompt": " "}, "train.jsonl:2: prompt: got ' ', expected text that is not empty"),
        ({**LINE, "answer": 12}, "train.jsonl:2: answer: got 12, expected text, or a list of texts"),
        ({**LINE, "answer": []}, "train.jsonl:2: answer: got [], expected text, or a list of texts"),
        ({"image": "a.png", "prefix": "<OD>"}, "train.jsonl:2: answer: got None, expected a text (answer or suffix)"),
        ({**LINE, "prefix": "x"}, "train.jsonl:2: prefix: got 'x', expected no such field next to prompt"),
    ],
)
def test_a_wrong_line_is_named_with_its_field(write_jsonl, line, message):
    file = write_jsonl(LINE, line)
    with pytest.raises(DataError) as raised:
        read_examples(str(file), "data")
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_text_is_utf8_with_or_without_a_byte_order_mark(write_jsonl):
    file = write_jsonl({**LINE, "answer": "größte"})
    (example,) = read_examples(str(file), "data")
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert read_examples(str(file), "data") == [example]
    file.write_bytes(file.read_bytes() + '{"prompt": "größte"}'.encode("latin-1"))
    with pytest.raises(DataError, match=r"train\.jsonl:2: text: got b'\\xf6\\xdfte\"}', expected UTF-8"):
        read_examples(str(file), "data")
    text = file.parent / "a.txt"
    text.write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"/a\.txt: text: got b'\\xe9', expected UTF-8"):
        read_examples(str(file.parent), "data")


def test_a_folder_has_images_next_to_their_texts(tmp_path):
    for name in ("b.JPG", "a.png"):
        PIL.Image.new("RGB", (4, 4)).save(tmp_path / name, "PNG")
    (tmp_path / "a.txt").write_text("A cat.\n")
    (tmp_path / "b.txt").write_text("A dog.")
    examples = read_examples(str(tmp_path), "data")
    assert [(each.image.name, each.prompt, each.answers) for each in examples] == [
        ("a.png", "<CAPTION>", ("A cat.",)),
        ("b.JPG", "<CAPTION>", ("A dog.",)),
    ]
    assert read_examples(str(tmp_path), "data", prompt="<HOUSE>")[0].prompt == "<HOUSE>"
    (tmp_path / "b.txt").unlink()
    with pytest.raises(DataError, match=r"/b\.JPG: text: got None, expected a file b\.txt next to it"):
        read_examples(str(tmp_path), "data")


@pytest.fixture
def coco(tmp_path):
    """`coco(**changes)`: a COCO file about the image `a.png`, 200 x 100 pixels."""

    def write(**changes):
        PIL.Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
        content = {
            "images": [{"id": 7, "file_name": "a.png", "width": 200, "height": 100}],
            "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "license plate"}],
            "annotations": [
                {"image_id": 7, "category_id": 1, "bbox": [0, 0, 100, 50]},
                {"image_id": 7, "category_id": 2, "bbox": [10, 10.1, 20, 9.9]},
                {"image_id": 7, "category_id": 1, "bbox": [150, 50, 60, 60]},
                {"image_id": 7, "category_id": 1, "bbox": [0, 0, 200, 100], "iscrowd": 1},
            ],
        }
        file = tmp_path / "annotations.json"
        file.write_text(json.dumps({**content, **changes}))
        return str(file)

    return write


def test_a_coco_image_is_one_example_with_its_boxes_grouped_by_label(coco):
    (example,) = read_examples(coco(), "data")
    # Rounded down to bins of a thousandth, and clamped to the image, as the client does with regions.
    cars = "car<loc_0><loc_0><loc_500><loc_500><loc_750><loc_500><loc_999><loc_999>"
    assert example.answers == (cars + "license plate<loc_50><loc_101><loc_150><loc_200>",)
    assert (example.prompt, example.origin) == ("<OD>", "annotations.json: images[0]")


def test_only_the_listed_classes_are_learned(coco):
    (example,) = read_examples(coco(), "data", classes=["license plate"])
    assert example.answers == ("license plate<loc_50><loc_101><loc_150><loc_200>",)
    with pytest.raises(SettingError, match=r"classes: got 'bus', expected a category of annotations\.json \(car, lic"):
        read_examples(coco(), "data", classes=["bus"])


def test_an_image_without_objects_has_an_empty_answer(coco):
    assert read_examples(coco(annotations=[]), "data")[0].answers == ("",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": 1}, "annotations.json: images: got 1, expected a list"),
        ({"images": [{"id": 7}], "annotations": []}, "annotations.json: images[0]: file_name: got None"),
        (
            {"images": [{"id": 7, "file_name": "a.png", "width": 100}], "annotations": []},
            "annotations.json: images[0]: width: got 100, expected 200, as a.png is displayed",
        ),
        ({"images": [{"id": [7]}]}, "annotations.json: images[0]: id: got [7], expected an id"),
        ({"annotations": [{"image_id": {}}]}, "annotations.json: annotations[0]: image_id: got {}, expected the id of"),
        ({"annotations": [{"image_id": 8}]}, "annotations.json: annotations[0]: image_id: got 8, expected the id of"),
        ({"annotations": [{"image_id": 7, "category_id": 3}]}, "annotations.json: annotations[0]: category_id: got 3"),
        (
            {"annotations": [{"image_id": 7, "category_id": 1, "bbox": [0, 0, 0, 5]}]},
            "annotations.json: annotations[0]: bbox: got [0, 0, 0, 5], expected [left, top, width, height]",
        ),
    ],
)
def test_a_wrong_coco_entry_is_named_with_its_field(coco, changes, message):
    with pytest.raises(DataError) as raised:
        read_examples(coco(**changes), "data")
    assert str(raised.value).startswith(message)


def test_a_box_refers_to_the_image_as_displayed(coco, tmp_path):
    file = coco(images=[{"id": 7, "file_name": "a.png", "width": 100, "height": 200}])
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    PIL.Image.new("RGB", (200, 100)).save(tmp_path / "a.png", exif=exif)
    assert read_examples(file, "data")[0].answers[0].startswith("car<loc_0><loc_0><loc_999><loc_250>")


def test_labels_keep_the_order_of_their_first_object():
    box = (0.0, 0.0, 1.0, 1.0)
    answer = detection_answer([("b", box), ("a", box), ("b", box)], (10, 10))
    assert answer.replace("<loc_0><loc_0><loc_100><loc_100>", ".") == "b..a."


@pytest.mark.parametrize(("form", "expected"), [("folder", "a folder"), ("jsonl", "a file")])
def test_the_form_has_to_fit(tmp_path, write_jsonl, form, expected):
    source = write_jsonl(LINE) if form == "folder" else tmp_path
    with pytest.raises(SettingError, match=f"data: got '.*', expected {expected}, as format is {form}"):
        read_examples(str(source), "data", form)


def test_images_are_split_not_examples(tmp_path):
    examples = [Example(tmp_path / f"{index % 10}.png", "q", (str(index),), "") for index in range(40)]
    training, validation = split(examples, 0.2, seed=1)
    assert (len(training), len(validation)) == (32, 8)
    assert {each.image for each in training}.isdisjoint(each.image for each in validation)
    assert split(examples, 0.2, seed=1) == (training, validation)
    assert split(examples, 0.2, seed=2) != (training, validation)
