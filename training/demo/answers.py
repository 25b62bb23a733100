"""Questions about a scene and their exact answers, in the formats of the official Florence-2 checkpoints.

Locations are bins of a thousandth of the picture's width or height: `floor(pixel * 1000 / side)`, at most 999.
Where an answer could be worded in several ways, the wording never needs the same three tokens twice, because the
official generation settings forbid it (`no_repeat_ngram_size` 3).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from training.scenes import Box, Scene, Shape, bin_of, zone

COUNTS = {2: "two", 3: "three"}

# From a scene to a text to ask with and its answer; the generator chooses what is asked about.
Asker = Callable[[Scene, random.Random], tuple[str, str]]


@dataclass(frozen=True)
class Question:
    """A task token, the text or region it is asked with (may be empty) and the answer that is true."""

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
    """The polygons of all shapes, `<sep>` between them."""
    return "<sep>".join(location_tokens(shape.polygon(), scene) for shape in shapes)


def grouped(shapes: Sequence[Shape], key: Callable[[Shape], str]) -> dict[str, list[Shape]]:
    """The shapes by label or description, in the order of each group's first."""
    groups: dict[str, list[Shape]] = {}
    for shape in shapes:
        groups.setdefault(key(shape), []).append(shape)
    return groups


def joined(parts: Sequence[str], comma: str = ", ") -> str:
    """`a, b and c`."""
    return parts[0] if len(parts) == 1 else comma.join(parts[:-1]) + " and " + parts[-1]


def phrase(name: str, count: int) -> str:
    """A group as a caption names it: `a red circle`, `two red circles`."""
    article = "an" if name[0] in "aeiou" else "a"
    return f"{article} {name}" if count == 1 else f"{COUNTS[count]} {name}s"


def phrases(scene: Scene) -> dict[str, list[Shape]]:
    """The noun phrases of the caption and the shapes each stands for."""
    return {phrase(label, len(group)): group for label, group in grouped(scene.shapes, _label).items()}


def capitalized(text: str) -> str:
    """The text with its first letter in upper case, the rest untouched."""
    return text[:1].upper() + text[1:]


def caption(scene: Scene) -> str:
    """`A red circle and two blue squares.`"""
    return capitalized(joined(list(phrases(scene)))) + "."


def detailed_caption(scene: Scene) -> str:
    """The caption with background and words."""
    texts = [word.text for word in scene.words]
    ending = f" with the word{'s' * (len(texts) > 1)} {joined(texts)}" if texts else ""
    return f"The image shows {joined(list(phrases(scene)))} on a {scene.background} background{ending}."


def more_detailed_caption(scene: Scene) -> str:
    """Background, then size and zone of every shape, then the words."""
    groups = [
        f"{phrase(name, len(group)).removeprefix('a ')} {joined([zone(scene, shape.box) for shape in group])}"
        for name, group in grouped(scene.shapes, _description).items()
    ]
    # The last joint differs from the one before, or "upper left;" could come twice.
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


def _plain(answer: Callable[[Scene], str]) -> Asker:
    """An asker of a task which takes no input."""
    return lambda scene, _: ("", answer(scene))


def _ask_grounding(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """The phrases of a caption, each followed by its boxes: of the whole caption, or at times of a part of it."""
    groups = phrases(scene)
    if rng.random() < 0.3:
        chosen = rng.sample(list(groups), rng.randint(1, len(groups)))
        groups = {name: groups[name] for name in chosen}
    first = capitalized(next(iter(groups)))
    text = capitalized(joined(list(groups))) + "."
    return text, first + _boxes(scene, groups)[len(first) :]


def _ask_expression(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """The polygons of every shape that a label or description fits."""
    name = rng.choice((_label, _description))
    text, shapes = rng.choice(list(grouped(scene.shapes, name).items()))
    return text, polygons_tokens(shapes, scene)


def _ask_vocabulary(scene: Scene, rng: random.Random) -> tuple[str, str]:
    label, shapes = rng.choice(list(grouped(scene.shapes, _label).items()))
    return label, _boxes(scene, {label: shapes})


def _ask_polygon(scene: Scene, rng: random.Random) -> tuple[str, str]:
    shape = rng.choice(scene.shapes)
    return box_tokens(shape.box, scene), polygons_tokens([shape], scene)


def _ask_category(scene: Scene, rng: random.Random) -> tuple[str, str]:
    names = [(shape.box, shape.label) for shape in scene.shapes] + [(word.box, "text") for word in scene.words]
    box, name = rng.choice(names)
    return box_tokens(box, scene), name


def _ask_description(scene: Scene, rng: random.Random) -> tuple[str, str]:
    names = [(shape.box, shape.description) for shape in scene.shapes]
    names += [(word.box, f"the word {word.text}") for word in scene.words]
    box, name = rng.choice(names)
    return box_tokens(box, scene), name


def _ask_word(scene: Scene, rng: random.Random) -> tuple[str, str]:
    word = rng.choice(scene.words)
    return box_tokens(word.box, scene), word.text


ASKERS: dict[str, Asker] = {
    "<CAPTION>": _plain(caption),
    "<DETAILED_CAPTION>": _plain(detailed_caption),
    "<MORE_DETAILED_CAPTION>": _plain(more_detailed_caption),
    "<OD>": _plain(lambda scene: _boxes(scene, grouped(scene.shapes, _label))),
    "<DENSE_REGION_CAPTION>": _plain(lambda scene: _boxes(scene, grouped(scene.shapes, _description))),
    "<REGION_PROPOSAL>": _plain(lambda scene: "".join(box_tokens(shape.box, scene) for shape in scene.shapes)),
    "<CAPTION_TO_PHRASE_GROUNDING>": _ask_grounding,
    "<REFERRING_EXPRESSION_SEGMENTATION>": _ask_expression,
    "<REGION_TO_SEGMENTATION>": _ask_polygon,
    "<OPEN_VOCABULARY_DETECTION>": _ask_vocabulary,
    "<REGION_TO_CATEGORY>": _ask_category,
    "<REGION_TO_DESCRIPTION>": _ask_description,
    "<OCR>": _plain(lambda scene: " ".join(word.text for word in scene.words)),
    "<OCR_WITH_REGION>": _plain(lambda scene: "".join(w.text + quad_tokens(w.box, scene) for w in scene.words)),
    "<REGION_TO_OCR>": _ask_word,
}
TASKS = tuple(ASKERS)
WORD_TASKS = frozenset({"<OCR>", "<OCR_WITH_REGION>", "<REGION_TO_OCR>"})


def tasks_of(scene: Scene) -> list[str]:
    """The tasks that have an answer on a scene: those about words need one."""
    return [task for task in TASKS if scene.words or task not in WORD_TASKS]


def ask(scene: Scene, task: str, rng: random.Random) -> Question:
    """A question of a task about a scene; `rng` chooses what is asked about."""
    text, answer = ASKERS[task](scene, rng)
    return Question(task, text, answer)
