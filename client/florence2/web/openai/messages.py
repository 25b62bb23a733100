"""The text and the image in the messages of a chat."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from florence2.errors import InvalidArgumentError

_IMAGE_PART: Final = '{"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}'


class ChatImage(NamedTuple):
    """The image of a chat.

    Attributes:
        data: a `data:` URI, as text.
        field: its path in the request: `messages[0].content[1].image_url.url`.
    """

    data: bytes
    field: str


class Prompt(NamedTuple):
    """The text and the image of a chat.

    Attributes:
        text: of the last message of the role `user`.
        image: of the last message of the role `user` that has one.
    """

    text: str
    image: ChatImage


def read_messages(messages: Any) -> Prompt:
    """The text and the image of a chat. Messages of other roles than `user`, and older texts, are not read.

    Raises:
        InvalidArgumentError: the messages do not have the form of the API, or there is no image, more than one, or
            something other than text and image. The error's field is the path in the request.
    """
    field = "messages"
    if not isinstance(messages, list) or not messages:
        raise InvalidArgumentError.of_field(field, messages, "a list of at least one message")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise InvalidArgumentError.of_field(f"{field}[{index}]", message, "an object with a role and a content")
    asked = [(f"{field}[{index}].content", each.get("content")) for index, each in _by_user(messages)]
    if not asked:
        raise InvalidArgumentError.of_field(field, [each["role"] for each in messages], "a message of the role user")
    text = _text(*asked[-1])
    images = next((found for each in reversed(asked) if (found := _images(*each))), [])
    if not images:
        raise InvalidArgumentError.of_field(field, text, f"an image beside the text, as the part {_IMAGE_PART}")
    if len(images) > 1:
        raise InvalidArgumentError.of_field(images[1].field, f"{len(images)} images", "one image in a message")
    return Prompt(text, images[0])


def _by_user(messages: Sequence[dict[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
    return [(index, message) for index, message in enumerate(messages) if message["role"] == "user"]


def _text(field: str, content: Any) -> str:
    """The text of a content, in which all parts must be text or images."""
    texts = []
    for path, part in _parts(field, content):
        if part["type"] == "text":
            texts.append(_checked(f"{path}.text", part.get("text")))
        elif part["type"] != "image_url":
            raise InvalidArgumentError.of_field(f"{path}.type", part["type"], '"text" or "image_url"')
    return "\n".join(texts)


def _images(field: str, content: Any) -> list[ChatImage]:
    parts = _parts(field, content)
    return [_image(f"{path}.image_url", part.get("image_url")) for path, part in parts if part["type"] == "image_url"]


def _image(field: str, value: Any) -> ChatImage:
    if isinstance(value, dict):  # its other key, `detail`, is for models that see images at several resolutions
        field, value = f"{field}.url", value.get("url")
    return ChatImage(_checked(field, value).encode(), field)


def _parts(field: str, content: Any) -> list[tuple[str, dict[str, Any]]]:
    """The parts of a content, each with its path."""
    if isinstance(content, str):
        return [(field, {"type": "text", "text": content})]
    if not isinstance(content, list):
        raise InvalidArgumentError.of_field(field, content, "a text, or a list of parts")
    for index, part in enumerate(content):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise InvalidArgumentError.of_field(f"{field}[{index}]", part, "an object with a type")
    return [(f"{field}[{index}]", part) for index, part in enumerate(content)]


def _checked(field: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidArgumentError.of_field(field, value, "a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidArgumentError.of_field(field, value, "text that can be encoded as UTF-8") from None
    return value
