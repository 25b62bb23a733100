"""Opens image files within limits and loads them as displayed. Any fault of a file is an error of its caller."""

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

from florence2_server.config import EngineConfig, text_bytes
from florence2_server.engine.images.formats import readable_formats
from florence2_server.engine.images.frames import has_more_frames

_QUOTED_BYTES = 60
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # tags of TIFF 6.0, section 15, by which both are multiples of 16
_TILE_MULTIPLE = 16
_decode_base64 = partial(pybase64.b64decode, validate=True)


@dataclass(frozen=True)
class ImageReader:
    """Reads image files within limits.

    Attributes:
        formats: Pillow's names for the formats to read.
        max_bytes: the largest image file, in bytes.
        max_pixels: the largest image, width x height.
        max_frames: the maximum number of frames of an animation; only the first one is decoded.
    """

    formats: tuple[str, ...]
    max_bytes: int
    max_pixels: int
    max_frames: int
    # The header of an AVIF file may declare a smaller image than its frames, which Pillow decodes all the same, up to
    # 16,384 x 16,384 pixels and on all cores. One at a time bounds the memory to one such frame, however many requests
    # arrive at once.
    _avif_lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @classmethod
    def of(cls, config: EngineConfig) -> "ImageReader":
        """Make a reader from the settings. If they enable HEIC, this registers its Pillow plug-in in the process."""
        formats = readable_formats(heic=bool(config.heic))
        return cls(formats, config.max_image_bytes, config.max_image_pixels, config.max_image_frames)

    def file(self, encoded: bytes) -> bytes:
        """The image file itself, from what the caller sent: the file or its text.

        Raises:
            InvalidArgumentError: it is empty or too large.
        """
        if not encoded:
            raise InvalidArgumentError.of_field("IMAGE", encoded, "an encoded image")
        self._check_bytes(len(encoded), text_bytes(self.max_bytes))
        data = image_file(encoded, _decode_base64)
        self._check_bytes(len(data), self.max_bytes)
        return data

    def load(self, data: bytes, encoded: bytes) -> PIL.Image.Image:
        """Load an image (the first frame, or the primary image) in RGB as displayed.

        Args:
            data: the file.
            encoded: what the caller sent, the file or its text, for error messages.

        Raises:
            InvalidArgumentError: the file is not an image of a known format, is damaged, or exceeds a limit.
        """
        image = self._open(data, encoded)
        self._check_pixels(image)
        self._check_tiles(image)
        self._check_frames(image, data)
        try:
            with self._avif_lock if image.format == "AVIF" else nullcontext():
                image.load()
            return displayed_file(image, "IMAGE")
        except InvalidArgumentError:
            raise
        except Exception as error:  # noqa: BLE001 - decoders raise anything for damaged files
            raise _damage(image, error) from None

    def _open(self, data: bytes, encoded: bytes) -> PIL.Image.Image:
        """Read an image's header, but no pixels."""
        try:
            return PIL.Image.open(io.BytesIO(data), formats=self.formats)
        except PIL.Image.DecompressionBombError as error:
            raise InvalidArgumentError.of_field("IMAGE", str(error), "fewer pixels") from None
        except Exception:  # noqa: BLE001 - decoders raise anything for damaged files
            expected = (
                f"a file of {', '.join(self.formats)}, its base64 text, or a base64 data: URI; URLs are not fetched"
            )
            raise InvalidArgumentError.of_field("IMAGE", _quotation(encoded), expected) from None

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
        """The tiles of a TIFF file may be larger than its image, and each is decoded as a whole."""
        tags = getattr(image, "tag_v2", {})
        width, height = tags.get(_TILE_WIDTH), tags.get(_TILE_LENGTH)
        if not isinstance(width, int) or not isinstance(height, int):
            return  # there are no tiles, or Pillow has rejected them
        one_tile = math.prod(-(-side // _TILE_MULTIPLE) * _TILE_MULTIPLE for side in image.size)
        limit = max(self.max_pixels, one_tile)
        if width * height > limit:
            raise InvalidArgumentError.of_field(
                "IMAGE", f"TIFF with tiles of {width} x {height} pixels", f"tiles of at most {limit} pixels"
            )

    def _check_frames(self, image: PIL.Image.Image, data: bytes) -> None:
        try:
            has_more = has_more_frames(image, data, self.max_frames)
        except Exception as error:  # noqa: BLE001 - decoders raise anything for damaged files
            raise _damage(image, error) from None
        if has_more:
            raise InvalidArgumentError.of_field(
                "IMAGE", f"{image.format} with more frames", f"at most {self.max_frames} frames"
            )


def _quotation(encoded: bytes) -> str | bytes:
    """The beginning of what the caller sent, as text if it is text."""
    beginning = encoded[:_QUOTED_BYTES]
    text = beginning.decode("ascii", errors="replace")
    if not text.isprintable() or "\N{REPLACEMENT CHARACTER}" in text:
        return beginning[:16]
    return f"{text}…" if len(encoded) > len(text) else text


def _damage(image: PIL.Image.Image, error: Exception) -> InvalidArgumentError:
    found = f"{image.format} of {image.width} x {image.height} pixels"
    return InvalidArgumentError.of_field("IMAGE", found, f"a complete, undamaged image ({error})")
