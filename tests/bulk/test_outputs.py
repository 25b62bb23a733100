"""The outputs: JSON Lines, Parquet, COCO, a file for each image, and drawn pictures."""

import json
import os

import fsspec
import PIL.Image
import pyarrow.parquet
import pytest
from florence2.bulk.pictures import safe_path
from florence2.errors import InvalidArgumentError

from tests.bulk.conftest import lines
from tests.bulk.test_sources import FOLDER_IDS


def test_parquet_has_a_column_for_each_task(run_job, folder, tmp_path):
    run_job([folder], ["detect", "caption"], tmp_path / "out.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["id", "image", "width", "height", "truncated", "usage", "detect", "caption"]
    assert table["id"].to_pylist() == FOLDER_IDS
    assert json.loads(table["caption"][0].as_py())["text"] == "A dog."
    assert (table["width"][0].as_py(), table["height"][0].as_py()) == (64, 48)


def test_coco_has_images_annotations_and_categories(run_job, folder, tmp_path):
    run_job([folder], ["detect"], tmp_path / "out.json")
    data = json.loads((tmp_path / "out.json").read_text())
    assert [image["id_in_source"] for image in data["images"]] == FOLDER_IDS
    assert data["categories"] == [{"id": 1, "name": "dog"}]
    first = data["annotations"][0]
    assert (first["id"], first["image_id"], first["category_id"], first["iscrowd"]) == (1, 1, 1, 0)
    # Bins 100, 200, 300 and 400 of 1,000, at their centers, in an image of 64 x 48 pixels.
    assert first["bbox"] == pytest.approx([6.432, 9.624, 12.8, 9.6], abs=1e-4)
    assert first["area"] == pytest.approx(12.8 * 9.6, abs=1e-3)


@pytest.mark.parametrize(("task", "corners"), [("segment=a dog", 3), ("read-text-regions", 4)])
def test_coco_has_outlines_and_quads(run_job, folder, tmp_path, task, corners):
    run_job([folder], [task], tmp_path / "out.json")
    first = json.loads((tmp_path / "out.json").read_text())["annotations"][0]
    (polygon,) = first["segmentation"]
    assert len(polygon) == 2 * corners
    left, top, width, height = first["bbox"]
    assert (left, top) == (min(polygon[0::2]), min(polygon[1::2]))
    assert first["area"] == pytest.approx(width * height / (1 if corners == 4 else 2), rel=1e-4)


def test_coco_takes_one_task_with_boxes(run_job, folder, tmp_path):
    for tasks in (["caption"], ["detect", "caption"]):
        with pytest.raises(InvalidArgumentError, match="one task with boxes or outlines"):
            run_job([folder], tasks, tmp_path / "out.json")


def test_a_folder_has_a_file_for_each_image(run_job, folder, tmp_path):
    run_job([folder], ["caption"], tmp_path / "out")
    files = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.json"))
    assert files == sorted(f"{id_}.json" for id_ in FOLDER_IDS)
    assert lines(tmp_path / "out" / "c.png.json")[0]["results"]["caption"]["text"] == "A dog."


def test_a_link_is_written_through_and_a_device_is_refused(run_job, folder, tmp_path):
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "real.jsonl")
    run_job([folder], ["caption"], tmp_path / "link.jsonl")
    assert (tmp_path / "link.jsonl").is_symlink()
    assert len(lines(tmp_path / "real.jsonl")) == len(FOLDER_IDS)
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(OSError, match="no regular file"):
        run_job([folder], ["caption"], tmp_path / "pipe.jsonl")


def test_the_format_may_be_named(run_job, folder, tmp_path):
    run_job([folder], ["caption"], tmp_path / "results.txt", format="jsonl")
    assert len(lines(tmp_path / "results.txt")) == len(FOLDER_IDS)
    with pytest.raises(InvalidArgumentError, match="jsonl, parquet, coco, folder"):
        run_job([folder], ["caption"], tmp_path / "results.txt", format="xml")


def test_pictures_are_drawn_for_results_with_places(run_job, folder, tmp_path):
    run_job([folder], ["detect", "caption"], tmp_path / "out.jsonl", draw=str(tmp_path / "drawn"))
    drawn = sorted(str(path.relative_to(tmp_path / "drawn")) for path in (tmp_path / "drawn").rglob("*.*"))
    assert drawn == sorted(f"{id_}.detect.png" for id_ in FOLDER_IDS)
    assert PIL.Image.open(tmp_path / "drawn" / drawn[0]).size == (64, 48)


def test_an_image_that_cannot_be_drawn_is_listed_with_its_results_kept(run_job, folder, tmp_path):
    (tmp_path / "drawn" / "c.png.png").mkdir(parents=True)
    assert run_job([folder], ["detect"], tmp_path / "out.jsonl", draw=str(tmp_path / "drawn")).failed == 1
    assert len(lines(tmp_path / "out.jsonl")) == len(FOLDER_IDS)
    assert [line["id"] for line in lines(tmp_path / "out.failed.jsonl")] == ["c.png"]


def test_an_output_in_a_bucket_is_written_there(run_job, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_job([folder], ["detect"], "memory://results/out.parquet", draw="memory://results/drawn")
    with fsspec.open("memory://results/out.parquet") as file:
        assert pyarrow.parquet.read_table(file)["id"].to_pylist() == FOLDER_IDS
    assert fsspec.filesystem("memory").exists("/results/drawn/c.png.png")
    assert (tmp_path / "out.parquet.state").is_dir()


def test_a_file_of_an_id_stays_in_its_folder_and_belongs_to_it_only():
    given = ["a/b.png", "../x", "/x", "a//b", "a/./b", "s.tar::x", "s.tar%3A%3Ax", "x" * 300, "x" * 301, "CON?"]
    paths = [safe_path(id_) for id_ in given]
    assert len(set(paths)) == len(given)
    assert all(not {"", ".", ".."} & set(path.split("/")) for path in paths)
    assert all(len(part.encode()) <= 200 for path in paths for part in path.split("/"))
