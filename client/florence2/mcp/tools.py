"""The tools and their descriptions for models. Each is one task of the client."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mcp_types import Tool, ToolAnnotations

from florence2.mcp import arguments
from florence2.mcp.schemas import definitions, output_schema

_SHARED: Final = "Coordinates are pixels of the image as displayed, from its top left corner. Scores are 0 to 1."


@dataclass(frozen=True)
class ImageTool:
    """A tool about one image.

    Attributes:
        name: as callers name it.
        title: for people.
        description: for models.
        arguments: the class of its arguments.
        results: the `type` of the results that it can have.
    """

    name: str
    title: str
    description: str
    arguments: type[arguments.ImageArguments]
    results: tuple[str, ...]


TOOLS: Final = (
    ImageTool(
        "caption",
        "Describe an image",
        "Describe an image in words: one sentence, a few sentences, or a paragraph.",
        arguments.Caption,
        ("text",),
    ),
    ImageTool(
        "detect",
        "Detect objects",
        "Detect the common objects in an image, e.g. car, person, chair: a category, a box [x_min, y_min, x_max, "
        f"y_max] and a score for each. To find something specific, use `ground`. {_SHARED}",
        arguments.Detect,
        ("detections",),
    ),
    ImageTool(
        "read",
        "Read text",
        "Read the text in an image (OCR). With `with_regions`, each piece of text has its outline, a quad [x1, y1, "
        f"..., x4, y4] clockwise from the text's top left corner. {_SHARED}",
        arguments.Read,
        ("text", "text_regions"),
    ),
    ImageTool(
        "ground",
        "Find what phrases describe",
        "Find what phrases refer to in an image: a box [x_min, y_min, x_max, y_max] and a score for each place. The "
        f"model tends to find something for each phrase, so check the scores. {_SHARED}",
        arguments.Ground,
        ("detections",),
    ),
    ImageTool(
        "segment",
        "Outline an object",
        "Outline what an expression refers to, or the object in a region: polygons of [x, y] points. The model "
        f"outlines something even if the object is not in the image. {_SHARED}",
        arguments.Segment,
        ("segmentation",),
    ),
    ImageTool(
        "describe_region",
        "Describe a region",
        f"Describe in words what is in a region of an image, e.g. in a box that `detect` or `ground` found. {_SHARED}",
        arguments.DescribeRegion,
        ("text",),
    ),
)
"""All tools."""


def listed_tools(folders: Sequence[Path]) -> list[Tool]:
    """The tools with their schemas.

    Args:
        folders: those whose files a path may name.
    """
    known = definitions()
    return [_listed(tool, _path_description(folders), known) for tool in TOOLS]


def _listed(tool: ImageTool, path_description: str, known: dict[str, Any]) -> Tool:
    schema = arguments.input_schema(tool.arguments)
    schema["properties"]["path"]["description"] = path_description
    return Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=schema,
        output_schema=output_schema(tool.results, known),
        annotations=ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False),
    )


def _path_description(folders: Sequence[Path]) -> str:
    if not folders:
        return "Not available: this server cannot read files, because it was started without --root. Use `image`."
    places = ", ".join(map(str, folders))
    return (
        f"The path of an image file inside {places}: absolute, or relative to it. "
        "Give either `path` or `image`; prefer `path`."
    )
