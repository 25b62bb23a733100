"""Image files, opened within limits and loaded as displayed. Any fault in one is reported as its caller's error."""

import io
import math
import threading
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

import PIL.Image
import pybase64
from florence2.base64_text import image_file
from florence2.display import displayed_file
from florence2.errors import InvalidArgumentError

from florence2_engine.config import EngineConfig, text_bytes
from florence2_engine.formats import readable_formats
from florence2_engine.frames import has_more_frames

_QUOTED_BYTES = 60
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # tags of TIFF 6.0, section 15, by which both are multiples of 16
_TILE_MULTIPLE = 16
_decode_base64 = partial(pybase64.b64decode, validate=True)


@dataclass(frozen=True)
class ImageReader:
    """Reads image files within limits.

    Attributes:
        formats: Pillow's names for the formats that are read.
        max_bytes: the largest image file, in bytes.
        max_pixels: the largest image, width x height.
        max_frames: the most frames of an animation, of which only the first is decoded.
    """

    formats: tuple[str, ...]
    max_bytes: int
    max_pixels: int
    max_frames: int
    # The header of an AVIF file may declare a smaller image than its frames, which Pillow still decodes, up to
    # 16,384 x 16,384 pixels and on all cores. Decoding one at a time bounds the memory to one such frame, however many
    # requests arrive together.
    _avif_turn: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @classmethod
    def of(cls, config: EngineConfig) -> "ImageReader":
        """Make a reader from the settings. If they enable HEIC, its Pillow plug-in is registered in this process."""
        formats = readable_formats(heic=bool(config.heic))
        return cls(formats, config.max_image_bytes, config.max_image_pixels, config.max_image_frames)

    def file(self, sent: bytes) -> bytes:
        """The image file that was sent, either as it is or as text.

        Raises:
            InvalidArgumentError: nothing was sent, or too many bytes.
        """
        if not sent:
            raise InvalidArgumentError.of_field("IMAGE", sent, "an encoded image")
        self._check_bytes(len(sent), text_bytes(self.max_bytes))
        data = image_file(sent, _decode_base64)
        self._check_bytes(len(data), self.max_bytes)
        return data

    def load(self, data: bytes, sent: bytes) -> PIL.Image.Image:
        """The image in a file (its first frame, or its primary image) in RGB as displayed.

        Args:
            data: the file.
            sent: the file or its text as the caller sent it, to quote in errors.

        Raises:
            InvalidArgumentError: the file is not an image of a known format, is damaged, or exceeds a limit.
        """
        image = self._open(data, sent)
        self._check_pixels(image)
        self._check_tiles(image)
        self._check_frames(image, data)
        try:
            with self._avif_turn if image.format == "AVIF" else nullcontext():
                image.load()
            return displayed_file(image, "IMAGE")
        except InvalidArgumentError:
            raise
        except Exception as error:  # noqa: BLE001 - decoders raise all kinds of exceptions for damaged files
            raise _damage(image, error) from None

    def _open(self, data: bytes, sent: bytes) -> PIL.Image.Image:
        """The image with its header read, but no pixels yet."""
        try:
            return PIL.Image.open(io.BytesIO(data), formats=self.formats)
        except PIL.Image.DecompressionBombError as error:
            raise InvalidArgumentError.of_field("IMAGE", str(error), "fewer pixels") from None
        except Exception:  # noqa: BLE001 - decoders raise all kinds of exceptions for damaged files
            expected = (
                f"a file of {', '.join(self.formats)}, its base64 text, or a base64 data: URI; URLs are not fetched"
            )
            raise InvalidArgumentError.of_field("IMAGE", _quotation(sent), expected) from None

    def _check_bytes(self, size: int, limit: int) -> None:
        if size > limit:
            raise InvalidArgumentError.of_field("IMAGE", f"{size} bytes", f"at most {self.max_bytes} bytes")

    def _check_pixels(self, image: PIL.Image.Image) -> None:
        width, height = image.size
        if width * height > self.max_pixels:
            raise InvalidArgumentError.of_field(
                "IMAGE", f"{width} x {height} pixels", f"at most {self.max_pixels} pixels"
            )

    def _check_tiles(self, image: PIL.Image.Image) -> None:
        """A TIFF file's tiles may be larger than its image, and each is decoded whole."""
        tags = getattr(image, "tag_v2", {})
        width, height = tags.get(_TILE_WIDTH), tags.get(_TILE_LENGTH)
        if not isinstance(width, int) or not isinstance(height, int):
            return  # there are no tiles, or Pillow has refused them
        one_tile = math.prod(-(-side // _TILE_MULTIPLE) * _TILE_MULTIPLE for side in image.size)
        limit = max(self.max_pixels, one_tile)
        if width * height > limit:
            raise InvalidArgumentError.of_field(
                "IMAGE", f"TIFF with tiles of {width} x {height} pixels", f"tiles of at most {limit} pixels"
            )

    def _check_frames(self, image: PIL.Image.Image, data: bytes) -> None:
        try:
            has_more = has_more_frames(image, data, self.max_frames)
        except Exception as error:  # noqa: BLE001 - decoders raise all kinds of exceptions for damaged files
            raise _damage(image, error) from None
        if has_more:
            raise InvalidArgumentError.of_field(
                "IMAGE", f"{image.format} with more frames", f"at most {self.max_frames} frames"
            )


def _quotation(sent: bytes) -> str | bytes:
    """The beginning of what was sent, as text if it is text."""
    beginning = sent[:_QUOTED_BYTES]
    text = beginning.decode("ascii", errors="replace")
    if not text.isprintable() or "\N{REPLACEMENT CHARACTER}" in text:
        return beginning[:16]
    return f"{text}…" if len(sent) > len(text) else text


def _damage(image: PIL.Image.Image, error: Exception) -> InvalidArgumentError:
    found = f"{image.format} of {image.width} x {image.height} pixels"
    return InvalidArgumentError.of_field("IMAGE", found, f"a complete, undamaged image ({error})")
