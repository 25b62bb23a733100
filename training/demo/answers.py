"""Training examples: tasks about a scene with their exact answers, in the formats of the official checkpoints.

Locations are bins of a thousandth of the image's width or height: `floor(pixel * 1000 / side)`, at most 999.
Of several possible wordings, an answer has one that repeats no three tokens, because the official generation settings
forbid repetition (`no_repeat_ngram_size` 3).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from training.demo.scenes import Box, Scene, Shape, bin_of, zone

COUNTS = {2: "two", 3: "three"}

# From a scene to the task's input text and its answer; the random generator chooses the objects.
ExampleMaker = Callable[[Scene, random.Random], tuple[str, str]]


@dataclass(frozen=True)
class Example:
    """A task token, its input text or region (empty for most tasks) and the true answer."""

    task: str
    text: str
    answer: str


def location_tokens(points: Iterable[tuple[float, float]], scene: Scene) -> str:
    """`<loc_x><loc_y>` for every (x, y) in pixels."""
    return "".join(f"<loc_{bin_of(x, scene.width)}><loc_{bin_of(y, scene.height)}>" for x, y in points)


def box_tokens(box: Box, scene: Scene) -> str:
    """The four location tokens of a bounding box."""
    return location_tokens([(box.left, box.top), (box.right, box.bottom)], scene)


def quad_tokens(box: Box, scene: Scene) -> str:
    """The eight location tokens of a quad, clockwise from its top left corner."""
    corners = [(box.left, box.top), (box.right, box.top), (box.right, box.bottom), (box.left, box.bottom)]
    return location_tokens(corners, scene)


def polygons_tokens(shapes: Sequence[Shape], scene: Scene) -> str:
    """The polygons of all shapes, separated by `<sep>`."""
    return "<sep>".join(location_tokens(shape.polygon(), scene) for shape in shapes)


def grouped(shapes: Sequence[Shape], key: Callable[[Shape], str]) -> dict[str, list[Shape]]:
    """Group the shapes by label or description, in order of first appearance."""
    groups: dict[str, list[Shape]] = {}
    for shape in shapes:
        groups.setdefault(key(shape), []).append(shape)
    return groups


def joined(parts: Sequence[str], comma: str = ", ") -> str:
    """`a, b and c`."""
    return parts[0] if len(parts) == 1 else comma.join(parts[:-1]) + " and " + parts[-1]


def phrase(name: str, count: int) -> str:
    """The noun phrase for a group: `a red circle`, `two red circles`."""
    article = "an" if name[0] in "aeiou" else "a"
    return f"{article} {name}" if count == 1 else f"{COUNTS[count]} {name}s"


def phrases(scene: Scene) -> dict[str, list[Shape]]:
    """The noun phrases of the caption, each with the shapes it refers to."""
    return {phrase(label, len(group)): group for label, group in grouped(scene.shapes, _label).items()}


def capitalized(text: str) -> str:
    """The text with its first letter in upper case and the rest unchanged."""
    return text[:1].upper() + text[1:]


def caption(scene: Scene) -> str:
    """`A red circle and two blue squares.`"""
    return capitalized(joined(list(phrases(scene)))) + "."


def detailed_caption(scene: Scene) -> str:
    """The caption extended by the background and the words."""
    texts = [word.text for word in scene.words]
    ending = f" with the word{'s' * (len(texts) > 1)} {joined(texts)}" if texts else ""
    return f"The image shows {joined(list(phrases(scene)))} on a {scene.background} background{ending}."


def more_detailed_caption(scene: Scene) -> str:
    """The background, size and zone of every shape, and the words."""
    groups = [
        f"{phrase(name, len(group)).removeprefix('a ')} {joined([zone(scene, shape.box) for shape in group])}"
        for name, group in grouped(scene.shapes, _description).items()
    ]
    # The last separator differs from the others, or "upper left;" could appear twice.
    body = groups[0] if len(groups) == 1 else "; ".join(groups[:-1]) + ", and " + groups[-1]
    texts = [word.text for word in scene.words]
    ending = f" The text says {joined(texts)}." if texts else ""
    return f"On a {scene.background} background, {body}.{ending}"


def _label(shape: Shape) -> str:
    return shape.label


def _description(shape: Shape) -> str:
    return shape.description


def _boxes(scene: Scene, groups: dict[str, list[Shape]]) -> str:
    """Every name followed by its group's boxes."""
    return "".join(name + "".join(box_tokens(shape.box, scene) for shape in group) for name, group in groups.items())


def _without_input(answer: Callable[[Scene], str]) -> ExampleMaker:
    """The maker for a task without input."""
    return lambda scene, _: ("", answer(scene))


def _grounding_example(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """The phrases of the caption, or sometimes only a part of them, each followed by its boxes."""
    groups = phrases(scene)
    if rng.random() < 0.3:
        chosen = rng.sample(list(groups), rng.randint(1, len(groups)))
        groups = {name: groups[name] for name in chosen}
    first = capitalized(next(iter(groups)))
    text = capitalized(joined(list(groups))) + "."
    return text, first + _boxes(scene, groups)[len(first) :]


def _expression_example(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """The polygons of every shape with a given label or description."""
    name = rng.choice((_label, _description))
    text, shapes = rng.choice(list(grouped(scene.shapes, name).items()))
    return text, polygons_tokens(shapes, scene)


def _vocabulary_example(scene: Scene, rng: random.Random) -> tuple[str, str]:
    label, shapes = rng.choice(list(grouped(scene.shapes, _label).items()))
    return label, _boxes(scene, {label: shapes})


def _polygon_example(scene: Scene, rng: random.Random) -> tuple[str, str]:
    shape = rng.choice(scene.shapes)
    return box_tokens(shape.box, scene), polygons_tokens([shape], scene)


def _category_example(scene: Scene, rng: random.Random) -> tuple[str, str]:
    names = [(shape.box, shape.label) for shape in scene.shapes] + [(word.box, "text") for word in scene.words]
    box, name = rng.choice(names)
    return box_tokens(box, scene), name


def _description_example(scene: Scene, rng: random.Random) -> tuple[str, str]:
    names = [(shape.box, shape.description) for shape in scene.shapes]
    names += [(word.box, f"the word {word.text}") for word in scene.words]
    box, name = rng.choice(names)
    return box_tokens(box, scene), name


def _word_example(scene: Scene, rng: random.Random) -> tuple[str, str]:
    word = rng.choice(scene.words)
    return box_tokens(word.box, scene), word.text


EXAMPLE_MAKERS: dict[str, ExampleMaker] = {
    "<CAPTION>": _without_input(caption),
    "<DETAILED_CAPTION>": _without_input(detailed_caption),
    "<MORE_DETAILED_CAPTION>": _without_input(more_detailed_caption),
    "<OD>": _without_input(lambda scene: _boxes(scene, grouped(scene.shapes, _label))),
    "<DENSE_REGION_CAPTION>": _without_input(lambda scene: _boxes(scene, grouped(scene.shapes, _description))),
    "<REGION_PROPOSAL>": _without_input(lambda scene: "".join(box_tokens(shape.box, scene) for shape in scene.shapes)),
    "<CAPTION_TO_PHRASE_GROUNDING>": _grounding_example,
    "<REFERRING_EXPRESSION_SEGMENTATION>": _expression_example,
    "<REGION_TO_SEGMENTATION>": _polygon_example,
    "<OPEN_VOCABULARY_DETECTION>": _vocabulary_example,
    "<REGION_TO_CATEGORY>": _category_example,
    "<REGION_TO_DESCRIPTION>": _description_example,
    "<OCR>": _without_input(lambda scene: " ".join(word.text for word in scene.words)),
    "<OCR_WITH_REGION>": _without_input(lambda scene: "".join(w.text + quad_tokens(w.box, scene) for w in scene.words)),
    "<REGION_TO_OCR>": _word_example,
}
TASKS = tuple(EXAMPLE_MAKERS)
WORD_TASKS = frozenset({"<OCR>", "<OCR_WITH_REGION>", "<REGION_TO_OCR>"})


def tasks_of(scene: Scene) -> list[str]:
    """The tasks that apply to a scene: those about words need at least one word."""
    return [task for task in TASKS if scene.words or task not in WORD_TASKS]


def make_example(scene: Scene, task: str, rng: random.Random) -> Example:
    """Make an example of a task; `rng` chooses the objects it is about."""
    text, answer = EXAMPLE_MAKERS[task](scene, rng)
    return Example(task, text, answer)
