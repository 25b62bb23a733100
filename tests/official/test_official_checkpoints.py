"""The four official checkpoints, in both layouts, against `generate()`: for machines that reach the hub.

Each layout is served as it is published; both are compared with transformers using the native one. A checkpoint
of the larger size takes 10 GB of memory and a quarter of an hour on a few cores.
"""

import io

import PIL.Image
import pytest

from tests.conftest import EXAMPLE_SCENE
from tests.engine.served import Served
from tests.reference import TASKS, Reference, assert_equal_except_near_ties, png
from training.demo.sampling import sample_scene
from training.demo.scenes import draw

pytestmark = pytest.mark.official

NAMES = ["Florence-2-base", "Florence-2-base-ft", "Florence-2-large", "Florence-2-large-ft"]
OPTIONS = [{"max_new_tokens": 40}, {"max_new_tokens": 40, "num_beams": 1}]


def photograph() -> bytes:
    """The example scene as a camera would send it: JPEG, larger, turned by its EXIF orientation."""
    with PIL.Image.open(EXAMPLE_SCENE) as scene:
        picture = scene.convert("RGB").resize((1200, 900))
    exif = picture.getexif()
    exif[0x0112] = 6
    file = io.BytesIO()
    picture.save(file, "JPEG", exif=exif)
    return file.getvalue()


@pytest.fixture(scope="module", params=NAMES)
def cases(request):
    reference = Reference(f"florence-community/{request.param}")
    images = [photograph(), png(draw(sample_scene(3)))]
    return request.param, [
        reference.case(images[number % 2], task, OPTIONS[number // 2 % 2]) for number, task in enumerate(TASKS)
    ]


@pytest.mark.parametrize("owner", ["microsoft", "florence-community"])
def test_answers_are_those_of_generate(cases, owner):
    name, asked = cases
    with Served(f"{owner}/{name}", slots=4) as served:
        answers = [list(served.run(each.image, each.request).token_ids) for each in asked]
    assert_equal_except_near_ties(asked, answers, [each.expected for each in asked])
