"""What the programs `scene` in other languages print about examples/scene.png."""

import re

import pytest
from florence2 import Client, v1
from florence2.errors import InvalidArgumentError

from tests.conftest import EXAMPLE_SCENE

CAPTION = "A red circle, a green triangle and a blue square."
_NUMBER = re.compile(r"\d+\.\d+")


def expected_lines(client: Client) -> list[str]:
    """The lines, with the Python client's answers."""
    objects = client.detect(EXAMPLE_SCENE)
    words = client.run(EXAMPLE_SCENE, v1.TaskRequest(ocr_with_region={}))
    return [
        *(f"object {_shown(each)}: {client.describe_region(EXAMPLE_SCENE, each.box).text}" for each in objects),
        *(f"phrase {_shown(each)}" for each in client.ground(EXAMPLE_SCENE, CAPTION, num_beams=1)),
        *(f"stream {each.label} {each.quad[0]:.2f} {each.quad[1]:.2f}" for each in words.result),
        f"stream complete: {words.usage.generated_tokens} tokens",
        _error_line(client),
        "deadline exceeded",
    ]


def _shown(item) -> str:
    x_min, y_min, x_max, y_max = item.box
    return f"{item.label} [{x_min:.2f} {y_min:.2f} {x_max:.2f} {y_max:.2f}] confidence {item.score:.2f}"


def _error_line(client: Client) -> str:
    with pytest.raises(InvalidArgumentError) as caught:
        client.describe_region(EXAMPLE_SCENE, (0, 0, 9999, 10))
    return f"error {caught.value.field} is {caught.value.value}: expected {caught.value.requirement}"


def assert_same(printed: str, expected: list[str]) -> None:
    """Check that a program printed these lines. Scores may differ in the last digit, from one run to the next."""
    lines = printed.splitlines()
    assert [_NUMBER.sub("", line) for line in lines] == [_NUMBER.sub("", line) for line in expected]
    numbers = [[float(number) for line in each for number in _NUMBER.findall(line)] for each in (lines, expected)]
    assert numbers[0] == pytest.approx(numbers[1], abs=0.011)
