"""The typed clients and a real tritonserver: every method's result is the text of Hugging Face's model, decoded."""

import asyncio
import dataclasses
import io

import florence2
import numpy as np
import PIL.Image
import pytest

from tests.reference import png
from training.demo.sampling import sample_scene
from training.demo.scenes import draw

REGION = (20.0, 30.0, 150.5, 140.0)
BOX = {"x_min": 20.0, "y_min": 30.0, "x_max": 150.5, "y_max": 140.0}
OPTIONS = {"max_new_tokens": 200}
METHODS = [
    ("caption", (), {"caption": {}}),
    ("caption", ("detailed",), {"detailed_caption": {}}),
    ("caption", ("paragraph",), {"more_detailed_caption": {}}),
    ("detect", (), {"object_detection": {}}),
    ("describe_regions", (), {"dense_region_caption": {}}),
    ("propose_regions", (), {"region_proposal": {}}),
    ("ground", ("A red circle.",), {"phrase_grounding": {"caption": "A red circle."}}),
    ("detect_open_vocabulary", ("red circle",), {"open_vocabulary_detection": {"query": "red circle"}}),
    ("segment", ("red circle",), {"referring_expression_segmentation": {"expression": "red circle"}}),
    ("segment_region", (REGION,), {"region_to_segmentation": {"region": BOX}}),
    ("classify_region", (REGION,), {"region_to_category": {"region": BOX}}),
    ("describe_region", (REGION,), {"region_to_description": {"region": BOX}}),
    ("read_region", (REGION,), {"region_to_ocr": {"region": BOX}}),
    ("read_text", (), {"ocr": {}}),
    ("read_text_regions", (), {"ocr_with_region": {}}),
    ("generate", ("How many circles?",), {"free_prompt": {"text": "How many circles?"}}),
]


@pytest.fixture(scope="module")
def picture() -> PIL.Image.Image:
    return draw(sample_scene(31))


@pytest.fixture(scope="module")
def expected(reference, picture) -> list[florence2.Result]:
    cases = [reference.case(png(picture), task, OPTIONS) for _, _, task in METHODS]
    tasks = [next(iter(task)) for _, _, task in METHODS]
    tokens = {task.name: task.token for task in florence2.TASKS}
    return [
        florence2.decode(tokens.get(task, ""), reference.text(case), picture.size)
        for task, case in zip(tasks, cases, strict=True)
    ]


def without_scores(result: florence2.Result) -> florence2.Result:
    """A result without its scores, whose last digits depend on the batch."""
    scores = [field.name for field in dataclasses.fields(result) if "score" in field.name or "likelihood" in field.name]
    return dataclasses.replace(result, **dict.fromkeys(scores))


def test_every_method_returns_the_models_result(server, picture, expected):
    with florence2.Client(server.grpc_url) as client:
        answers = [getattr(client, method)(picture, *arguments, **OPTIONS) for method, arguments, _ in METHODS]
    assert [without_scores(answer) for answer in answers] == expected
    scores = [answer.likelihood if isinstance(answer, florence2.Text) else answer.likelihoods for answer in answers]
    assert all(((score > 0) & (score <= 1)).all() for score in map(np.asarray, scores))


def test_every_method_awaited_together_returns_the_models_result(server, picture, expected):
    async def run_all() -> list[florence2.Result]:
        async with florence2.AsyncClient(server.grpc_url) as client:
            calls = [getattr(client, method)(picture, *arguments, **OPTIONS) for method, arguments, _ in METHODS]
            return await asyncio.gather(*calls)

    assert [without_scores(answer) for answer in asyncio.run(run_all())] == expected


def test_a_path_bytes_a_picture_and_an_array_are_the_same_image(server, picture, tmp_path):
    path = tmp_path / "scene.png"
    picture.save(path)
    with florence2.Client(server.grpc_url) as client:
        images = (path, path.read_bytes(), picture, np.asarray(picture))
        answers = [without_scores(client.detect(image)) for image in images]
    assert all(answer == answers[0] for answer in answers)


def test_coordinates_are_those_of_the_image_as_displayed(server, picture):
    """A camera held upright stores a turned image; coordinates are those of the image that a viewer shows."""
    turned = picture.transpose(PIL.Image.Transpose.ROTATE_90)
    exif = turned.getexif()
    exif[0x0112] = 6  # display by turning 90 degrees clockwise
    file = io.BytesIO()
    turned.save(file, "PNG", exif=exif)
    with florence2.Client(server.grpc_url) as client:
        answer = client.run(file.getvalue(), florence2.v1.TaskRequest(object_detection={}))
        assert answer.image_size == picture.size
        assert without_scores(answer.result) == without_scores(client.detect(picture))


def test_errors_are_typed(server, picture):
    with florence2.Client(server.grpc_url) as client:
        # The engine checks this, which alone knows the image's size.
        path = rf"^region_to_ocr\.region\.x_max: got {picture.width + 2}\.0, expected at most {picture.width + 1}, "
        with pytest.raises(florence2.errors.InvalidArgumentError, match=path):
            client.read_region(picture, (0, 0, picture.width + 2, 5))
        with pytest.raises(
            florence2.errors.InvalidArgumentError, match=r"^phrase_grounding\.phrases: got '\d+ tokens'"
        ):
            client.ground(picture, ["a cat"] * 600)
        with pytest.raises(florence2.errors.InvalidArgumentError, match="IMAGE"):
            client.detect(b"not an image")
        with pytest.raises(florence2.errors.DeadlineExceededError):
            client.read_text(picture, min_new_tokens=900, timeout=0.3)
        with pytest.raises(florence2.TruncatedAnswerError):
            client.detect(picture, max_new_tokens=4)


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [("florence3", "", "unknown model: 'florence3'"), ("florence2", "9", "unknown model: 'florence2'.* version 9")],
)
def test_an_unknown_model_or_version_is_named(server, picture, name, version, message):
    with florence2.Client(server.grpc_url, model=name, model_version=version) as client:
        assert not client.is_ready()
        with pytest.raises(florence2.errors.ModelNotFoundError, match=message):
            client.detect(picture)


def test_an_existing_version_is_found(server, picture):
    with florence2.Client(server.grpc_url, model_version="1") as client:
        assert client.is_ready()
        assert client.detect(picture).labels


def test_an_unreachable_server_is_unavailable(picture):
    with florence2.Client("localhost:1", timeout=1) as client, pytest.raises(florence2.errors.UnavailableError):
        client.detect(picture)
