"""The fifteen tasks of Florence-2: what a user asks, and the sentence that the model is fed.

A prompt has two forms. Users know the text form, an official token and its input: `<OD>`,
`<CAPTION_TO_PHRASE_GROUNDING>A green car`. The model was trained on sentences: "Locate the objects with
category name in the image." `render_prompt` goes from a request to the text form, `expand_prompt` from there
to the sentence.

Sentences and tokens are those of the model's authors, as `Florence2Processor` of Hugging Face transformers
has them. It looks for a token anywhere in a prompt; here only a token at the very beginning names a task, so
that a caption which mentions `<OD>` is text like any other.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from google.protobuf.message import Message

from florence2 import v1
from florence2.errors import InvalidArgumentError
from florence2.generation import check_generation
from florence2.locations import ImageSizeLike, check_region, location_tokens, region_bins


class AnswerForm(Enum):
    """How a task's answer is written, which decides what it is parsed to."""

    TEXT = "words"
    REGION_TEXT = "words, which may echo the locations of the region asked about"
    LABELED_BOXES = "a label and one or more boxes, repeated"
    BOXES = "boxes without labels"
    POLYGONS = "polygons without labels"
    LABELED_BOXES_OR_POLYGONS = "a label and boxes or polygons, repeated"
    QUADS = "a piece of text and a quad, repeated"


@dataclass(frozen=True)
class Task:
    """One task: how it is asked and how it is answered."""

    name: str
    """The field of `TaskRequest`'s oneof `task`, e.g. `"object_detection"`."""
    token: str
    """The official token, e.g. `"<OD>"`."""
    message: type[Message]
    """The class of that field, in `florence2.v1`."""
    sentence: str
    """What the model is fed; `{input}` stands where the input goes."""
    answer: AnswerForm
    """How the answer is written."""
    input: Literal["caption", "expression", "query", "region"] | None = None
    """The message's field that holds the input; None for a task without."""

    @property
    def takes_region(self) -> bool:
        """Whether the input is a box, written as location tokens, and so rendering needs the image's size."""
        return self.input == "region"

    @property
    def takes_text(self) -> bool:
        """Whether the input is the user's words. What looks like a special token in them is plain text."""
        return self.input is not None and not self.takes_region


TASKS: tuple[Task, ...] = (
    Task("caption", "<CAPTION>", v1.Caption, "What does the image describe?", AnswerForm.TEXT),
    Task(
        "detailed_caption",
        "<DETAILED_CAPTION>",
        v1.DetailedCaption,
        "Describe in detail what is shown in the image.",
        AnswerForm.TEXT,
    ),
    Task(
        "more_detailed_caption",
        "<MORE_DETAILED_CAPTION>",
        v1.MoreDetailedCaption,
        "Describe with a paragraph what is shown in the image.",
        AnswerForm.TEXT,
    ),
    Task(
        "object_detection",
        "<OD>",
        v1.ObjectDetection,
        "Locate the objects with category name in the image.",
        AnswerForm.LABELED_BOXES,
    ),
    Task(
        "dense_region_caption",
        "<DENSE_REGION_CAPTION>",
        v1.DenseRegionCaption,
        "Locate the objects in the image, with their descriptions.",
        AnswerForm.LABELED_BOXES,
    ),
    Task(
        "region_proposal",
        "<REGION_PROPOSAL>",
        v1.RegionProposal,
        "Locate the region proposals in the image.",
        AnswerForm.BOXES,
    ),
    Task(
        "phrase_grounding",
        "<CAPTION_TO_PHRASE_GROUNDING>",
        v1.PhraseGrounding,
        "Locate the phrases in the caption: {input}",
        AnswerForm.LABELED_BOXES,
        input="caption",
    ),
    Task(
        "referring_expression_segmentation",
        "<REFERRING_EXPRESSION_SEGMENTATION>",
        v1.ReferringExpressionSegmentation,
        "Locate {input} in the image with mask",
        AnswerForm.POLYGONS,
        input="expression",
    ),
    Task(
        "region_to_segmentation",
        "<REGION_TO_SEGMENTATION>",
        v1.RegionToSegmentation,
        "What is the polygon mask of region {input}",
        AnswerForm.POLYGONS,
        input="region",
    ),
    Task(
        "open_vocabulary_detection",
        "<OPEN_VOCABULARY_DETECTION>",
        v1.OpenVocabularyDetection,
        "Locate {input} in the image.",
        AnswerForm.LABELED_BOXES_OR_POLYGONS,
        input="query",
    ),
    Task(
        "region_to_category",
        "<REGION_TO_CATEGORY>",
        v1.RegionToCategory,
        "What is the region {input}?",
        AnswerForm.REGION_TEXT,
        input="region",
    ),
    Task(
        "region_to_description",
        "<REGION_TO_DESCRIPTION>",
        v1.RegionToDescription,
        "What does the region {input} describe?",
        AnswerForm.REGION_TEXT,
        input="region",
    ),
    Task("ocr", "<OCR>", v1.Ocr, "What is the text in the image?", AnswerForm.TEXT),
    Task(
        "ocr_with_region",
        "<OCR_WITH_REGION>",
        v1.OcrWithRegion,
        "What is the text in the image, with regions?",
        AnswerForm.QUADS,
    ),
    Task(
        "region_to_ocr",
        "<REGION_TO_OCR>",
        v1.RegionToOcr,
        "What text is in the region {input}?",
        AnswerForm.REGION_TEXT,
        input="region",
    ),
)
"""The tasks, in the order of `TaskRequest`'s fields."""


def task_named(name: str | Message) -> Task | None:
    """The task of an official token (`"<OD>"`) or a task's message (`v1.ObjectDetection()`); else None."""
    if isinstance(name, str):
        return next((task for task in TASKS if task.token == name), None)
    return next((task for task in TASKS if isinstance(name, task.message)), None)


def task_of_prompt(prompt: str) -> Task | None:
    """The task whose token begins a prompt in text form; None for a prompt of a fine-tuned checkpoint."""
    return next((task for task in TASKS if prompt.startswith(task.token)), None)


def _task_of_field(name: str) -> Task:
    return next(task for task in TASKS if task.name == name)


def task_of(request: v1.TaskRequest) -> Task | None:
    """The task that says how a request's answer is written.

    It is the task message where there is one, whatever `request.prompt` says; else the token that begins the
    prompt. None for free prompts, which are answered with text.
    """
    name = request.WhichOneof("task")
    if name in (None, "free_prompt"):
        return task_of_prompt(request.prompt or request.free_prompt.text)
    return _task_of_field(name)


def render_prompt(request: v1.TaskRequest, image_size: ImageSizeLike | None = None) -> str:
    """A request's prompt in the text form that users know.

    Args:
        request: a request; `request.prompt` goes before its task, and a free prompt is returned as it is.
        image_size: the image's extent in pixels, which only tasks on a region need.

    Returns:
        E.g. `"<OD>"` or `"<REGION_TO_CATEGORY><loc_52><loc_332><loc_932><loc_774>"`.

    Raises:
        InvalidArgumentError: there is neither task nor prompt, or the region is not inside the image.
    """
    if request.prompt:
        return request.prompt
    name = request.WhichOneof("task")
    if name is None:
        raise InvalidArgumentError.of_field("task", None, "a task or a prompt")
    if name == "free_prompt":
        return request.free_prompt.text
    task = _task_of_field(name)
    return task.token + _render_input(task, getattr(request, name), image_size)


def _render_input(task: Task, message: Message, image_size: ImageSizeLike | None) -> str:
    if task.input is None:
        return ""
    value = getattr(message, task.input)
    if not task.takes_region:
        return str(value)
    if image_size is None:
        raise InvalidArgumentError.of_field("image_size", None, f"the image's size, which {task.token} needs")
    return location_tokens(region_bins(value, image_size, f"{task.name}.{task.input}"))


def expand_prompt(text: str) -> str:
    """The sentence that the model is fed for a prompt in text form.

    Args:
        text: e.g. `"<CAPTION_TO_PHRASE_GROUNDING>A green car"`. Blanks around the input are dropped.

    Returns:
        E.g. `"Locate the phrases in the caption: A green car"`; a prompt that no official token begins,
        unchanged.

    Raises:
        InvalidArgumentError: text follows the token of a task without input, or none follows that of a task
            with.
    """
    task = task_of_prompt(text)
    if task is None:
        return text
    value = text.removeprefix(task.token).strip()
    if task.input is None and value:
        raise InvalidArgumentError.of_field("prompt", text, f"nothing after {task.token}, which takes no input")
    if task.input is not None and not value:
        raise InvalidArgumentError.of_field("prompt", text, f"the {task.input} after {task.token}")
    # Not str.format: the input is the user's, who may write braces.
    return task.sentence.replace("{input}", value)


def check_request(request: v1.TaskRequest) -> None:
    """Check everything that can be known wrong without the image.

    With `request.prompt` the task message says only how the answer is decoded, so its own fields are not
    looked at.

    Raises:
        InvalidArgumentError: no task and no prompt, an empty phrase or prompt, an impossible region, or a
            generation option out of range. The message names the field, the value and the limit.
    """
    name = request.WhichOneof("task")
    if request.prompt or name == "free_prompt":
        _check_prompt(request)
    elif name is None:
        raise InvalidArgumentError.of_field("task", None, "a task or a prompt")
    else:
        _check_input(_task_of_field(name), getattr(request, name))
    check_generation(request.generation)


def _check_prompt(request: v1.TaskRequest) -> None:
    prompt = render_prompt(request)
    if not prompt.strip():
        field = "prompt" if request.prompt else "free_prompt.text"
        raise InvalidArgumentError.of_field(field, prompt, "a prompt that is not empty")
    expand_prompt(prompt)


def _check_input(task: Task, message: Message) -> None:
    if task.input is None:
        return
    field, value = f"{task.name}.{task.input}", getattr(message, task.input)
    if task.takes_text and not value.strip():
        raise InvalidArgumentError.of_field(field, value, f"a {task.input} that is not empty")
    if task.takes_region and not message.HasField(task.input):
        raise InvalidArgumentError.of_field(field, None, "a bounding box in pixels")
    if task.takes_region:
        check_region(value, field)
