"""The pictures of the README and the guide are what the code draws for the demo checkpoint's answers."""

import re

import florence2
import numpy as np
import pytest
from florence2_server.in_process import InProcess
from PIL import Image

from examples import pictures
from tests.conftest import ROOT

# Another machine's arithmetic may choose a neighboring location, 0.6 pixels away, which moves a line or a label.
_REACH = 2
_DIFFERENT = 0.0001
_CLEARLY = 48  # of 255
_SCORE = 0.02


@pytest.fixture(scope="module")
def drawn():
    with florence2.Client(transport=InProcess()) as client:
        return pictures.pictures(client)


def shown_in(page: str) -> set[str]:
    """The files in `examples` that a page shows."""
    return set(re.findall(r"!\[[^\]]*\]\((?:\.\./)?examples/([^)]+)\)", (ROOT / page).read_text()))


def different(one: Image.Image, other: Image.Image) -> float:
    """The share of a picture's pixels that differ from all pixels near the same place of another picture."""
    first, second = (np.asarray(picture.convert("RGB"), int) for picture in (one, other))
    rows, columns = np.nonzero(np.abs(first - second).max(axis=2) > _CLEARLY)
    around = np.pad(second, ((_REACH, _REACH), (_REACH, _REACH), (0, 0)), mode="edge")
    places = [(y, x) for y in range(2 * _REACH + 1) for x in range(2 * _REACH + 1)]
    nearest = [np.abs(first[rows, columns] - around[rows + y, columns + x]).max(axis=1) for y, x in places]
    return float((np.min(nearest, axis=0) > _CLEARLY).sum() / first[..., 0].size)


def words_and_scores(description: str) -> tuple[list[str], list[float]]:
    scores = re.findall(r"\d\.\d\d", description)
    return re.sub(r"\d\.\d\d", "", description).split(), [float(score) for score in scores]


def test_the_pictures_on_the_pages_are_up_to_date(drawn):
    for name, picture in drawn.items():
        with Image.open(pictures.FOLDER / name) as stored:
            assert stored.size == picture.pixels.size
            parts = (different(stored, picture.pixels), different(picture.pixels, stored))
            assert max(parts) < _DIFFERENT, f"{name} is out of date: run `make pictures`"
            words, scores = words_and_scores(stored.text["Description"])
        assert words == words_and_scores(picture.description)[0]
        assert scores == pytest.approx(words_and_scores(picture.description)[1], abs=_SCORE), "run `make pictures`"


def test_the_pages_show_what_the_command_draws(drawn):
    assert shown_in("README.md") == {"detected.png"}
    assert shown_in("README.md") | shown_in("docs/guide.md") == set(drawn)


def test_a_picture_without_its_boxes_would_be_out_of_date(drawn):
    with Image.open(pictures.IMAGE) as scene:
        assert different(drawn["detected.png"].pixels, scene) > _DIFFERENT


def test_the_command_writes_what_the_test_compares(drawn, tmp_path):
    drawn["detected.png"].save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.text["Description"].startswith("red circle ")
        assert different(stored, drawn["detected.png"].pixels) == 0
