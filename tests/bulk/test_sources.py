"""Each kind of source: its ids, their order, and the images behind them."""

import csv
import gzip
import io
import json
import os
import tarfile

import fsspec
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from florence2.bulk import open_sources
from florence2.bulk.storage import MOST_BYTES
from florence2.errors import InvalidArgumentError

from tests.bulk.conftest import picture

FOLDER_IDS = ["a/1.JPG", "a/deep/x.webp", "b/10.png", "b/2.png", "c.png"]


def listed(*urls, wanted=lambda _: True):
    return list(open_sources([str(url) for url in urls]).items(wanted))


def ids(*urls):
    return [item.id for item in listed(*urls)]


def write_manifest(path, rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def write_shard(path, members, mode="w"):
    with tarfile.open(path, mode) as shard:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    return path


def write_table(path, **columns):
    parquet.write_table(pa.table(columns), path)
    return path


def test_a_folder_has_its_images_in_the_order_of_their_paths(folder):
    items = listed(folder)
    assert [item.id for item in items] == FOLDER_IDS
    assert [item.read() for item in items] == [(folder / id_).read_bytes() for id_ in FOLDER_IDS]
    assert open_sources([str(folder)]).count() == len(FOLDER_IDS)


def test_a_glob_has_the_files_that_it_matches(folder):
    assert ids(f"{folder}/**/*.png") == ["b/10.png", "b/2.png", "c.png"]
    assert ids(f"{folder}/b/*.png") == ["10.png", "2.png"]


def test_links_to_files_are_images_and_links_to_folders_are_not_followed(folder):
    (folder / "b" / "link.png").symlink_to(folder / "c.png")
    (folder / "b" / "loop").symlink_to(folder)
    assert ids(folder / "b") == ids(f"{folder}/b/*.png") == ["10.png", "2.png", "link.png"]


def test_ids_of_several_sources_begin_with_the_source_as_given(folder):
    assert ids(folder / "a", folder / "c.png", f"{folder}/b/*.png") == [
        f"{folder}/a/1.JPG",
        f"{folder}/a/deep/x.webp",
        f"{folder}/c.png",
        f"{folder}/b/10.png",
        f"{folder}/b/2.png",
    ]


def test_braces_are_several_sources_unless_a_file_has_that_name(folder):
    assert ids(f"{folder}/{{b,a}}") == [
        f"{folder}/{id_}" for id_ in ("b/10.png", "b/2.png", "a/1.JPG", "a/deep/x.webp")
    ]
    (folder / "{1..2}.png").write_bytes(picture())
    assert ids(folder / "{1..2}.png") == ["{1..2}.png"]


def test_a_manifest_has_paths_relative_to_its_folder_with_ids_and_inputs(folder):
    rows = [
        {"image": "c.png", "id": "first", "text": "a dog"},
        {"image": str(folder / "b/2.png"), "region": [0, 0, 5, 5]},
    ]
    items = listed(write_manifest(folder / "list.jsonl", rows))
    assert [(item.id, dict(item.inputs)) for item in items] == [
        ("first", {"text": "a dog"}),
        ("list.jsonl::2", {"region": [0, 0, 5, 5]}),
    ]
    assert [item.read() for item in items] == [(folder / name).read_bytes() for name in ("c.png", "b/2.png")]


def test_a_csv_manifest_has_what_a_json_one_has(folder):
    with (folder / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "image", "text"], ["x", "c.png", 'a "dog", here'], ["", "b/2.png", ""]])
    items = listed(folder / "list.csv")
    assert [(item.id, dict(item.inputs)) for item in items] == [("x", {"text": 'a "dog", here'}), ("list.csv::2", {})]
    assert items[0].read() == (folder / "c.png").read_bytes()


def test_a_compressed_manifest_is_read(folder):
    (folder / "list.jsonl.gz").write_bytes(gzip.compress(b'{"image": "c.png"}\n\n{"image": "b/2.png"}\n'))
    assert ids(folder / "list.jsonl.gz") == ["list.jsonl.gz::1", "list.jsonl.gz::3"]


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"image": 5}'])
def test_a_wrong_line_is_that_images_error(folder, line):
    (folder / "list.jsonl").write_text(f'{{"image": "c.png"}}\n{line}\n')
    good, wrong = listed(folder / "list.jsonl")
    assert good.read()
    with pytest.raises(ValueError, match="line 2"):
        wrong.read()


@pytest.mark.parametrize(("name", "mode"), [("shard.tar", "w"), ("shard.tar.gz", "w:gz")])
def test_a_shard_has_its_images_with_the_inputs_of_their_samples(tmp_path, name, mode):
    members = [
        ("0.json", b'{"region": [0, 0, 5, 5]}'),
        ("0.png", picture(0)),
        ("0.txt", b"a dog\n"),
        ("deep/1.seg.png", picture(1)),
        ("readme.md", b""),
    ]
    items = listed(write_shard(tmp_path / name, members, mode))
    assert [(item.id, dict(item.inputs)) for item in items] == [
        (f"{name}::0.png", {"region": [0, 0, 5, 5], "text": "a dog"}),
        (f"{name}::deep/1.seg.png", {}),
    ]
    assert [item.read() for item in items] == [picture(0), picture(1)]


def test_numbered_shards_are_read_in_order(tmp_path):
    for number in range(3):
        write_shard(tmp_path / f"part-{number:03}.tar", [("x.png", picture(number))])
    expected = [picture(number) for number in range(3)]
    assert [item.read() for item in listed(tmp_path / "part-{000..002}.tar")] == expected
    assert ids(tmp_path / "part-*.tar") == [f"part-{number:03}.tar::x.png" for number in range(3)]


def test_a_table_has_bytes_paths_or_structs_of_them(folder):
    binary = write_table(folder / "bytes.parquet", image=[picture(7), None], text=["a dog", None])
    good, wrong = listed(binary)
    assert (good.id, good.read(), dict(good.inputs)) == ("bytes.parquet::0", picture(7), {"text": "a dog"})
    with pytest.raises(ValueError, match="row 1"):
        wrong.read()
    paths = listed(write_table(folder / "paths.parquet", image=["c.png"], id=["x"], caption=["left out"]))
    assert [(item.id, item.read(), dict(item.inputs)) for item in paths] == [("x", (folder / "c.png").read_bytes(), {})]
    structs = listed(write_table(folder / "hf.parquet", image=[{"bytes": picture(8), "path": "x.png"}]))
    assert [item.read() for item in structs] == [picture(8)]
    assert open_sources([str(binary)]).count() == 2


def test_a_table_without_images_names_its_columns(folder):
    table = write_table(folder / "none.parquet", picture=["c.png"])
    with pytest.raises(InvalidArgumentError, match=r"\['picture'\], expected a column named \"image\""):
        listed(table)


def test_what_is_not_wanted_is_not_read(folder):
    assert [item.id for item in listed(folder, wanted=lambda id_: id_.startswith("b/"))] == ["b/10.png", "b/2.png"]


@pytest.mark.parametrize("protocol", ["memory", "file"])
def test_urls_are_listed_as_paths_are(folder, protocol):
    root = f"{protocol}://{folder}"
    if protocol == "memory":
        fsspec.filesystem("memory").put(f"{folder}/", f"{folder}/", recursive=True)
    items = listed(root)
    assert [item.id for item in items] == FOLDER_IDS
    assert items[0].read() == (folder / "a/1.JPG").read_bytes()
    assert ids(f"{root}/**/*.png") == ["b/10.png", "b/2.png", "c.png"]
    with fsspec.open(f"{root}/list.jsonl", "w") as file:
        file.write(json.dumps({"image": "c.png"}) + "\n" + json.dumps({"image": f"{root}/b/2.png"}))
    assert [item.read() for item in listed(f"{root}/list.jsonl")] == [
        (folder / name).read_bytes() for name in ("c.png", "b/2.png")
    ]


def test_a_source_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing-here does not exist"):
        open_sources([str(tmp_path / "nothing-here")])
    with pytest.raises(FileNotFoundError, match=r"\*\.png matches no file"):
        open_sources([f"{tmp_path}/*.png"])
    with pytest.raises(InvalidArgumentError, match="expected a path or a URL that fsspec knows"):
        open_sources(["nonsense://bucket/x"])


def test_a_name_that_is_not_unicode_has_an_id(tmp_path):
    name = b"caf\xe9.png".decode(errors="surrogateescape")
    (tmp_path / name).write_bytes(picture())
    shard = write_shard(tmp_path / "s.tar", [(name, picture())])
    manifest = write_manifest(tmp_path / "l.jsonl", [{"image": name, "id": name}])
    for source in (tmp_path, f"{tmp_path}/*.png", tmp_path / name, shard, manifest):
        (item,) = listed(source)
        assert item.id.removeprefix("s.tar::") == "caf\\xe9.png"
        assert item.read() == picture()


@pytest.mark.parametrize("name", ["a::b", "new\nline", "[1]", "#?%20", " "])
def test_names_have_no_meaning(tmp_path, name):
    root = tmp_path / name
    root.mkdir()
    (root / f"{name}.png").write_bytes(picture())
    manifest = write_manifest(root / f"{name}.jsonl", [{"image": f"{name}.png"}])
    for source in (root, root / f"{name}.png", manifest):
        assert [item.read() for item in listed(source)] == [picture()]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.tar", b""),
        ("x.tar.gz", b"x" * 700),
        ("x.jsonl.gz", b"x"),
        ("x.parquet", b""),
        ("x.csv", b"image\ncaf\xe9.png\n"),
        ("x.csv", b"image\n" + b"x" * 200_000),
    ],
)
def test_a_broken_source_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(OSError, match=rf"/{name}: \w+: "):
        listed(tmp_path / name)


@pytest.mark.parametrize("line", ["[" * 100_000, '{"image": "nonsense://x.png"}'])
def test_a_line_that_no_reader_takes_is_that_images_error(folder, line):
    (folder / "list.jsonl").write_text(f'{line}\n{{"image": "c.png"}}\n')
    wrong, good = listed(folder / "list.jsonl")
    assert wrong.fault
    assert good.read()


def test_what_has_no_end_is_not_read(folder):
    os.mkfifo(folder / "z.png")
    with (folder / "zz.png").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    *_, pipe, large = listed(folder)
    (device,) = listed(write_manifest(folder / "list.jsonl", [{"image": "/dev/zero"}]))
    for item, message in ((pipe, "no regular file"), (device, "no regular file"), (large, "bytes, more than")):
        with pytest.raises(ValueError, match=message):
            item.read()


def test_a_shard_whose_names_begin_alike_is_not_held_as_one_sample(tmp_path, monkeypatch):
    monkeypatch.setattr("florence2.bulk.shards._SAMPLE_BYTES", 10)
    members = [(f"f.{number}.png", picture(number)) for number in range(3)]
    items = open_sources([str(write_shard(tmp_path / "s.tar", [*members, ("._f.png", b"x")]))]).items(lambda _: True)
    assert next(items).held_bytes == len(picture(0))
    assert [item.id for item in items] == ["s.tar::f.1.png", "s.tar::f.2.png"]


def test_no_source_is_not_the_current_directory():
    with pytest.raises(InvalidArgumentError, match="got ''"):
        open_sources([""])
