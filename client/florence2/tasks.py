"""The fifteen tasks of Florence-2 and the free prompt: input, the sentence for the model, and the form of the answer.

Sentences and tokens are those of the model's authors, as in `Florence2Processor` of Hugging Face transformers. The
processor finds a token anywhere in a prompt; here only a token at the very beginning names a task, so that a caption
that mentions `<OD>` is ordinary text.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from google.protobuf.message import Message

from florence2 import v1

PHRASE_SEPARATOR = "<and>"
"""The model's own token that separates the phrases, or the classes, of one request."""


class AnswerForm(Enum):
    """The form of a task's answer, which determines how it is parsed."""

    TEXT = "text"
    REGION_TEXT = "text, which may repeat the locations of the region in the request"
    LABELED_BOXES = "a label and one or more boxes, repeated"
    BOXES = "boxes without labels"
    POLYGONS = "polygons without labels"
    LABELED_BOXES_OR_POLYGONS = "a label and boxes or polygons, repeated"
    QUADS = "a piece of text and a quad, repeated"


@dataclass(frozen=True)
class Task:
    """A task, or the free prompt: its request and its answer."""

    name: str
    """The field of `TaskRequest`'s oneof `task`, e.g. `"object_detection"`."""
    token: str
    """The official token, e.g. `"<OD>"`; empty for the free prompt."""
    message: type[Message]
    """The class of that field, in `florence2.v1`."""
    sentence: str
    """The model's prompt; `{input}` is a placeholder for the input."""
    answer: AnswerForm
    """The form of the answer."""
    client_method: str
    """The method of `Client` and `AsyncClient`, e.g. `"detect"`."""
    input: Literal["caption", "expression", "query", "region", "text"] | None = None
    """The message's field that holds the input; None for a task without input."""
    inputs: Literal["phrases", "queries"] | None = None
    """The message's field for several inputs instead of one; None for a task that takes only one."""

    @property
    def takes_region(self) -> bool:
        """Whether the input is a box, written as location tokens; rendering it needs the image's size."""
        return self.input == "region"

    @property
    def takes_text(self) -> bool:
        """Whether the input is plain text: special tokens in it, except `<and>`, are read as ordinary characters."""
        return self.input in ("caption", "expression", "query")


TASKS: tuple[Task, ...] = (
    Task("caption", "<CAPTION>", v1.Caption, "What does the image describe?", AnswerForm.TEXT, "caption"),
    Task(
        "detailed_caption",
        "<DETAILED_CAPTION>",
        v1.DetailedCaption,
        "Describe in detail what is shown in the image.",
        AnswerForm.TEXT,
        "caption",
    ),
    Task(
        "more_detailed_caption",
        "<MORE_DETAILED_CAPTION>",
        v1.MoreDetailedCaption,
        "Describe with a paragraph what is shown in the image.",
        AnswerForm.TEXT,
        "caption",
    ),
    Task(
        "object_detection",
        "<OD>",
        v1.ObjectDetection,
        "Locate the objects with category name in the image.",
        AnswerForm.LABELED_BOXES,
        "detect",
    ),
    Task(
        "dense_region_caption",
        "<DENSE_REGION_CAPTION>",
        v1.DenseRegionCaption,
        "Locate the objects in the image, with their descriptions.",
        AnswerForm.LABELED_BOXES,
        "describe_regions",
    ),
    Task(
        "region_proposal",
        "<REGION_PROPOSAL>",
        v1.RegionProposal,
        "Locate the region proposals in the image.",
        AnswerForm.BOXES,
        "propose_regions",
    ),
    Task(
        "phrase_grounding",
        "<CAPTION_TO_PHRASE_GROUNDING>",
        v1.PhraseGrounding,
        "Locate the phrases in the caption: {input}",
        AnswerForm.LABELED_BOXES,
        "ground",
        input="caption",
        inputs="phrases",
    ),
    Task(
        "referring_expression_segmentation",
        "<REFERRING_EXPRESSION_SEGMENTATION>",
        v1.ReferringExpressionSegmentation,
        "Locate {input} in the image with mask",
        AnswerForm.POLYGONS,
        "segment",
        input="expression",
    ),
    Task(
        "region_to_segmentation",
        "<REGION_TO_SEGMENTATION>",
        v1.RegionToSegmentation,
        "What is the polygon mask of region {input}",
        AnswerForm.POLYGONS,
        "segment_region",
        input="region",
    ),
    Task(
        "open_vocabulary_detection",
        "<OPEN_VOCABULARY_DETECTION>",
        v1.OpenVocabularyDetection,
        "Locate {input} in the image.",
        AnswerForm.LABELED_BOXES_OR_POLYGONS,
        "detect_open_vocabulary",
        input="query",
        inputs="queries",
    ),
    Task(
        "region_to_category",
        "<REGION_TO_CATEGORY>",
        v1.RegionToCategory,
        "What is the region {input}?",
        AnswerForm.REGION_TEXT,
        "classify_region",
        input="region",
    ),
    Task(
        "region_to_description",
        "<REGION_TO_DESCRIPTION>",
        v1.RegionToDescription,
        "What does the region {input} describe?",
        AnswerForm.REGION_TEXT,
        "describe_region",
        input="region",
    ),
    Task("ocr", "<OCR>", v1.Ocr, "What is the text in the image?", AnswerForm.TEXT, "read_text"),
    Task(
        "ocr_with_region",
        "<OCR_WITH_REGION>",
        v1.OcrWithRegion,
        "What is the text in the image, with regions?",
        AnswerForm.QUADS,
        "read_text_regions",
    ),
    Task(
        "region_to_ocr",
        "<REGION_TO_OCR>",
        v1.RegionToOcr,
        "What text is in the region {input}?",
        AnswerForm.REGION_TEXT,
        "read_region",
        input="region",
    ),
    Task("free_prompt", "", v1.Prompt, "{input}", AnswerForm.TEXT, "generate", input="text"),
)
"""The fifteen tasks and, last, the free prompt, in the order of `TaskRequest`'s fields."""

TASK_NAMES = frozenset(task.name for task in TASKS)
"""The names of the fields that hold a single task, or the free prompt."""

FREE_PROMPT = TASKS[-1]
"""The prompt of a fine-tuned checkpoint, which begins with no official token and is answered with text."""


def task_named(name: str | Message) -> Task:
    """The task of an official token (`"<OD>"`) or of a task's message (`v1.ObjectDetection()`), else `FREE_PROMPT`."""
    if isinstance(name, str):
        return next((task for task in TASKS if task.token == name), FREE_PROMPT)
    return next((task for task in TASKS if isinstance(name, task.message)), FREE_PROMPT)


def task_of_prompt(prompt: str) -> Task:
    """The task whose token begins a prompt in text form, else `FREE_PROMPT`."""
    return next(task for task in TASKS if prompt.startswith(task.token))


def task_of_field(name: str) -> Task:
    """The task of a field of `TaskRequest`'s oneof `task`, e.g. `"object_detection"`."""
    return next(task for task in TASKS if task.name == name)


def task_of(request: v1.TaskRequest) -> Task:
    """The task that determines the form of a request's answer.

    If the request has a task message, that is the task, whatever `request.prompt` contains; else the prompt's token
    decides. A free prompt that begins with an official token is that task.
    """
    name = request.WhichOneof("task")
    if name in (None, FREE_PROMPT.name):
        return task_of_prompt(request.prompt or request.free_prompt.text)
    return task_of_field(name)
