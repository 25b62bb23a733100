"""An image of a run, and what its source says about it."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

from florence2.bulk.storage import Location
from florence2.errors import InvalidArgumentError

IMAGE_SUFFIXES: Final = frozenset(
    (".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
)
"""Names of image files end with one of these, in upper or lower case."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")

IsWanted: TypeAlias = Callable[[str], bool]
"""Whether a run needs the image of an id. A source calls it once for each of its images, in its order."""


@dataclass(frozen=True)
class Item:
    """An image, and its inputs.

    Attributes:
        id: unique in its source.
        image: where it is: a path, a URL, or `shard::member`.
        content: the bytes of the image file, or its location.
        inputs: the fields that the source has for this image, such as `text`, `prompt` or `region`.
        fault: why the source has no image for this id; None if it has one.
    """

    id: str
    image: str
    content: bytes | Location
    inputs: Mapping[str, object] = field(default_factory=dict)
    fault: str | None = None

    @property
    def held_bytes(self) -> int:
        """The bytes of the image that are in memory."""
        return len(self.content) if isinstance(self.content, bytes) else 0

    def read(self) -> bytes:
        """The image file.

        Raises:
            ValueError: the source has no image for this id.
            OSError: it cannot be read. Storage in buckets may raise other exceptions as well.
        """
        if self.fault is not None:
            raise ValueError(self.fault)
        return self.content if isinstance(self.content, bytes) else self.content.read()


class Source(Protocol):
    """Images in a fixed order, with ids that stay the same from run to run."""

    has_inputs: bool
    """Whether items can have inputs of their own."""

    def items(self, is_wanted: IsWanted) -> Iterator[Item]:
        """The images that are wanted, listed lazily."""

    def count(self) -> int | None:
        """The number of images, found without reading them; None if that takes as long as reading them."""


def listed_item(id_: str, image: str, folder: Location, inputs: Mapping[str, object]) -> Item:
    """An image that a manifest or a table lists by its path or URL. An invalid URL makes only this image fail."""
    try:
        return Item(id_, image, folder.resolve(image), inputs)
    except InvalidArgumentError as error:
        return Item(id_, image, b"", inputs, fault=str(error))


def id_text(id_: str) -> str:
    """An id as text that can be written: what is not Unicode, e.g. in a file's name, is escaped in hexadecimal."""
    return id_ if id_.isascii() else _SURROGATE.sub(_in_hexadecimal, id_)


def _in_hexadecimal(found: re.Match[str]) -> str:
    code = ord(found[0])
    # Python reads the bytes 80 to FF of a name that is not UTF-8 as these surrogates.
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def has_image_suffix(name: str) -> bool:
    """Whether a file's name is that of an image."""
    return f".{name.rpartition('.')[2].lower()}" in IMAGE_SUFFIXES
