"""The arguments of the tools: their descriptions for models, and the requests that they become.

The schemas are in the form that most hosts support: no alternatives at the top level, and no `null`, although it is
accepted for an argument that may be left out.
"""

import difflib
from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, ValidationError
from pydantic.json_schema import SkipJsonSchema

from florence2 import v1
from florence2.client import typed_requests
from florence2.client.typed_requests import CaptionDetail
from florence2.errors import InvalidArgumentError
from florence2.options import FilterOptions

_REGION: Final = (
    "A box [x_min, y_min, x_max, y_max] in pixels of the image as displayed: the origin is the top left corner, x "
    "grows to the right and y down."
)
_UNKNOWN: Final = "extra_forbidden"
_MISSING: Final = "missing"


def _without_null(schema: dict[str, Any]) -> None:
    """Leave the default `null` out of a schema: the argument may be left out."""
    schema.pop("default", None)


OptionalText: TypeAlias = Annotated[StrictStr | SkipJsonSchema[None], Field(json_schema_extra=_without_null)]
Region: TypeAlias = Annotated[list[float], Field(json_schema_extra={"minItems": 4, "maxItems": 4}, description=_REGION)]


class ImageArguments(BaseModel):
    """The image of a call."""

    model_config = ConfigDict(extra="forbid")

    path: OptionalText = Field(
        None,
        description="The path of an image file that this server can read. Give either `path` or `image`.",
    )
    image: OptionalText = Field(
        None,
        description="The image file itself, as base64 or as a base64 data: URI. URLs are not fetched.",
    )

    @abstractmethod
    def request(self) -> v1.TaskRequest:
        """The request of the call.

        Raises:
            InvalidArgumentError: an argument cannot be sent.
        """

    def filters(self) -> FilterOptions:
        """The conditions for items of the result."""
        return {}


class ItemArguments(ImageArguments):
    """Arguments of tools that return items, each with a location."""

    annotate: StrictBool = Field(
        True, description="Whether to return the image with the results drawn on it, beside the coordinates."
    )


class FilterArguments(ItemArguments):
    """Arguments of tools whose items have scores."""

    min_score: Annotated[float | SkipJsonSchema[None], Field(json_schema_extra=_without_null)] = Field(
        None, description="Leave out items with a lower score, 0 to 1."
    )
    max_items: Annotated[int | SkipJsonSchema[None], Field(json_schema_extra=_without_null)] = Field(
        None, description="Keep this many items, those with the highest scores."
    )

    def filters(self) -> FilterOptions:  # noqa: D102  # as in the base class
        return {"min_score": self.min_score, "max_items": self.max_items}


class Caption(ImageArguments):
    """Arguments of `caption`."""

    detail: CaptionDetail = Field("brief", description="One sentence, a few sentences, or a paragraph.")

    def request(self) -> v1.TaskRequest:  # noqa: D102
        return typed_requests.caption(self.detail).request


class Detect(FilterArguments):
    """Arguments of `detect`."""

    def request(self) -> v1.TaskRequest:  # noqa: D102
        return typed_requests.detect().request


class Read(FilterArguments):
    """Arguments of `read`."""

    with_regions: StrictBool = Field(
        False, description="Whether to return each piece of text with its outline, instead of the text alone."
    )

    def request(self) -> v1.TaskRequest:  # noqa: D102
        task = typed_requests.read_text_regions() if self.with_regions else typed_requests.read_text()
        return task.request


class Ground(FilterArguments):
    """Arguments of `ground`."""

    phrases: list[StrictStr] = Field(
        description='What to look for, e.g. ["a red car", "the person on the left"]. A whole caption in one element '
        "works, too: its phrases are found."
    )

    def request(self) -> v1.TaskRequest:  # noqa: D102
        return typed_requests.ground(self.phrases[0] if len(self.phrases) == 1 else self.phrases).request


class Segment(ItemArguments):
    """Arguments of `segment`."""

    expression: OptionalText = Field(
        None, description='What to outline, e.g. "the red car". Give either `expression` or `region`.'
    )
    region: Annotated[Region | SkipJsonSchema[None], Field(json_schema_extra=_without_null)] = Field(
        None, description=f"Outline the object in this region. {_REGION}"
    )

    def request(self) -> v1.TaskRequest:  # noqa: D102
        if (self.expression is None) == (self.region is None):
            raise InvalidArgumentError.of_field("expression", self.expression, "either `expression` or `region`")
        if self.region is not None:
            return typed_requests.segment_region(self.region).request
        return typed_requests.segment(self.expression or "").request


class DescribeRegion(ItemArguments):
    """Arguments of `describe_region`."""

    region: Region

    def request(self) -> v1.TaskRequest:  # noqa: D102
        return typed_requests.describe_region(self.region).request


def read_arguments(model: type[ImageArguments], given: Mapping[str, Any]) -> ImageArguments:
    """The arguments of a call.

    Raises:
        InvalidArgumentError: one is unknown, missing or has the wrong type.
    """
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise _refusal(model, error) from error


def input_schema(model: type[ImageArguments]) -> dict[str, Any]:
    """The JSON schema of a tool's arguments."""
    schema = model.model_json_schema()
    del schema["description"]  # that of the class; the tool has its own
    return {name: _without_titles(value) for name, value in schema.items() if name != "title"}


def _refusal(model: type[ImageArguments], error: ValidationError) -> InvalidArgumentError:
    """The first thing that is wrong with the arguments."""
    details = error.errors(include_url=False, include_context=False)
    # An unknown name first: it is often the cause of a missing one.
    first = next((each for each in details if each["type"] == _UNKNOWN), details[0])
    field, *inner = map(str, first["loc"])
    if first["type"] == _UNKNOWN:
        near = difflib.get_close_matches(field, model.model_fields, 1)
        hint = f"`{near[0]}`, or another " if near else ""
        names = ", ".join(model.model_fields)
        return InvalidArgumentError.of_field("arguments", field, f"{hint}one of {names}")
    if first["type"] == _MISSING:
        return InvalidArgumentError.of_field(field, None, "a value: it is required")
    path = field + "".join(f"[{each}]" for each in inner if each.isdigit())
    reason = first["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return InvalidArgumentError.of_field(path, first["input"], reason)


def _without_titles(schema: Any) -> Any:
    """The schema without pydantic's titles, which repeat the names."""
    if isinstance(schema, list):
        return [_without_titles(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: value for name, value in schema.items() if not (name == "title" and isinstance(value, str))}
    return {name: _without_titles(value) for name, value in kept.items()}
