"""The fifteen tasks of Florence-2: the user's input, the sentence that the model is fed, and the form of its answer.

Sentences and tokens are those of the model's authors, as `Florence2Processor` of Hugging Face transformers
has them. It looks for a token anywhere in a prompt; here only a token at the very beginning names a task, so
that a caption which mentions `<OD>` is text like any other.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from google.protobuf.message import Message

from florence2 import v1

PHRASE_SEPARATOR = "<and>"
"""The model's own token that separates the phrases, or the classes, of one request."""


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
    inputs: Literal["phrases", "queries"] | None = None
    """The message's field that holds several inputs instead; None for a task that takes only one."""

    @property
    def takes_region(self) -> bool:
        """Whether the input is a box, written as location tokens, and so rendering needs the image's size."""
        return self.input == "region"

    @property
    def takes_text(self) -> bool:
        """Whether the input is the user's words. Special tokens in them, except `<and>`, are plain text."""
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
        inputs="phrases",
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
        inputs="queries",
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


def task_of_field(name: str) -> Task:
    """The task of a field of `TaskRequest`'s oneof `task`, e.g. `"object_detection"`; a free prompt has none."""
    return next(task for task in TASKS if task.name == name)


def task_of(request: v1.TaskRequest) -> Task | None:
    """The task that says how a request's answer is written.

    It is the task message where there is one, whatever `request.prompt` says; else the token that begins the
    prompt. None for free prompts, which are answered with text.
    """
    name = request.WhichOneof("task")
    if name in (None, "free_prompt"):
        return task_of_prompt(request.prompt or request.free_prompt.text)
    return task_of_field(name)
