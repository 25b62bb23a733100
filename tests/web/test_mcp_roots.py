"""Files that tool calls name by path."""

import os
from pathlib import Path

import pytest
from florence2.errors import InvalidArgumentError
from florence2.mcp.roots import Roots

PICTURE = b"a picture"
SECRET = b"a secret"
MOST = 1000


@pytest.fixture
def folder(tmp_path) -> Path:
    """A root with a picture in it and in its folder `inner`; beside it, a secret in the folder `outside`."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.png").write_bytes(SECRET)
    (tmp_path / "root" / "inner").mkdir(parents=True)
    (tmp_path / "root" / "picture.png").write_bytes(PICTURE)
    (tmp_path / "root" / "inner" / "picture.png").write_bytes(PICTURE)
    return tmp_path / "root"


def refusal(roots: Roots, path: object) -> str:
    with pytest.raises(InvalidArgumentError) as refused:
        roots.read(str(path), MOST)
    assert refused.value.field == "path"
    return refused.value.requirement


@pytest.mark.parametrize("path", ["picture.png", "inner/picture.png", "inner/../picture.png", "./picture.png"])
def test_a_file_in_a_root_is_read_by_its_relative_and_its_absolute_path(folder, path):
    assert Roots([folder]).read(path, MOST) == PICTURE
    assert Roots([folder]).read(str(folder / path), MOST) == PICTURE


def test_without_roots_a_path_is_refused_with_the_option_that_allows_it(folder):
    assert "--root" in refusal(Roots(), folder / "picture.png")


def test_paths_outside_are_refused_alike_whether_or_not_they_exist(folder):
    outside = folder.parent / "outside"
    paths = [
        "../outside/secret.png",
        outside / "secret.png",
        outside / "missing.png",
        "/etc/passwd",
        "/",
        "../root-2/x",
    ]
    assert {refusal(Roots([folder]), path) for path in paths} == {f"a file inside a folder given by --root: {folder}"}


def test_links_are_followed_inside_a_root_and_not_out_of_it(folder):
    outside = folder.parent / "outside"
    (folder / "link.png").symlink_to(folder / "inner" / "picture.png")
    (folder / "secret.png").symlink_to(outside / "secret.png")
    (folder / "way-out").symlink_to(outside)
    assert Roots([folder]).read("link.png", MOST) == PICTURE
    for path in ("secret.png", "way-out/secret.png", "way-out/missing.png"):
        assert "inside a folder given by --root" in refusal(Roots([folder]), path)


def test_a_root_may_itself_be_reached_through_a_link(folder):
    alias = folder.parent / "alias"
    alias.symlink_to(folder)
    assert Roots([alias]).read(str(alias / "picture.png"), MOST) == PICTURE
    assert Roots([folder]).read(str(alias / "picture.png"), MOST) == PICTURE


@pytest.mark.parametrize("replaced", ["inner/picture.png", "inner"])
def test_a_path_whose_part_becomes_a_link_after_it_was_checked_is_refused(folder, monkeypatch, replaced):
    resolve = os.path.realpath

    def resolve_and_replace(path):
        found = resolve(path)
        (folder / replaced).rename(folder / "moved")
        target = folder.parent / "outside"
        (folder / replaced).symlink_to(target / "secret.png" if replaced.endswith("png") else target)
        return found

    (folder.parent / "outside" / "picture.png").write_bytes(SECRET)
    roots = Roots([folder])
    monkeypatch.setattr(os.path, "realpath", resolve_and_replace)
    assert refusal(roots, "inner/picture.png") == "an existing file"


def test_only_regular_files_are_read(folder):
    os.mkfifo(folder / "pipe")  # which would block
    for path in ("pipe", "inner", ".", folder):
        assert refusal(Roots([folder]), path) == "a regular file"


def test_the_size_of_a_file_is_limited(folder):
    (folder / "large.png").write_bytes(bytes(MOST))
    assert len(Roots([folder]).read("large.png", MOST)) == MOST
    (folder / "large.png").write_bytes(bytes(MOST + 1))
    assert refusal(Roots([folder]), "large.png") == "a file of at most 1,000 bytes"


@pytest.mark.parametrize(
    ("path", "requirement"),
    [
        ("", "the path of a file"),
        ("picture\0.png", "the path of a file"),
        ("missing.png", "an existing file"),
        ("picture.png/x", "an existing file"),
        ("https://example.com/picture.png", "a path; URLs are not fetched"),
        ("file:///etc/passwd", "a path; URLs are not fetched"),
        ("x" * 300, "a readable file (File name too long)"),
        ("/x" * 1_000_000, "at most 4,096 characters"),  # resolving it would take minutes
    ],
)
def test_paths_that_are_none_are_refused_with_a_reason(folder, path, requirement):
    assert refusal(Roots([folder]), path) == requirement


def test_a_relative_path_is_looked_up_in_all_roots(folder):
    roots = Roots([folder, folder.parent / "outside"])
    assert roots.read("secret.png", MOST) == SECRET
    assert roots.read("picture.png", MOST) == PICTURE


def test_a_root_that_is_no_folder_is_refused(folder):
    with pytest.raises(InvalidArgumentError, match=r"--root: got .*, expected an existing folder"):
        Roots([folder / "picture.png"])
