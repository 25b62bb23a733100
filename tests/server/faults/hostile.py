"""Hostile inputs, and some that only look hostile, of every kind that has crashed such servers. They are seeded."""

import functools
import io
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import PIL.Image
from florence2.v1 import BoundingBox, TaskRequest
from tritonclient.grpc import service_pb2

from tests.reference import png
from tests.server.wire_requests import add_tensor, element, infer_request

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_SHORT = {"max_new_tokens": 2, "num_beams": 1}


@dataclass(frozen=True)
class Hostile:
    """An input.

    Attributes:
        kind: what is wrong with it.
        image: the element of IMAGE.
        request: the element of REQUEST.
        is_good: True if it has to be answered, False if it has to be rejected, None if either is right.
        wrong_tensors: the message to send instead, for faults of the tensors rather than their elements.
    """

    kind: str
    image: bytes
    request: bytes
    is_good: bool | None
    wrong_tensors: service_pb2.ModelInferRequest | None = None

    def on_the_wire(self) -> service_pb2.ModelInferRequest:
        """The message to send."""
        return self.wrong_tensors or infer_request(self.image, self.request)


class Attacker:
    """Makes inputs, which depend on the seed alone."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        picture = PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8))
        self._picture = picture
        self._files = {name: _encoded(picture, name) for name in FORMATS}
        self._request = TaskRequest(caption={}, generation=_SHORT).SerializeToString()
        self._kinds: dict[str, Callable[[], Hostile]] = {
            "truncated image": self._truncated,
            "bit-flipped image": self._flipped,
            "decompression bomb": self._bomb,
            "huge dimensions": self._huge,
            "animated image": self._animated,
            "unusual image": self._unusual,
            "noise for an image": self._noise,
            "escaped base64": self._escaped,
            "mutated protobuf": self._mutated_protobuf,
            "mutated JSON": self._mutated_json,
            "noise for a request": self._noise_request,
            "special tokens in text": self._special_tokens,
            "wild box": self._wild_box,
            "wild options": self._wild_options,
            "invalid UTF-8": self._invalid_utf8,
            "wrong tensors": self._wrong_tensors,
            "cut tensors": self._cut_tensors,
        }

    def next(self) -> Hostile:
        """The next input."""
        return self._kinds[self._random.choice(list(self._kinds))]()

    def _file(self) -> bytes:
        return self._files[self._random.choice(FORMATS)]

    def _about_image(self, kind: str, image: bytes, is_good: bool | None = None) -> Hostile:
        return Hostile(kind, image, self._request, is_good)

    def _about_request(self, kind: str, request: bytes, is_good: bool | None = None) -> Hostile:
        return Hostile(kind, self._files["PNG"], request, is_good)

    def _truncated(self) -> Hostile:
        image = self._file()
        return self._about_image("truncated image", image[: self._random.randrange(len(image))])

    def _flipped(self) -> Hostile:
        image = bytearray(self._file())
        for _ in range(self._random.randint(1, 30)):
            image[self._random.randrange(len(image))] ^= 1 << self._random.randrange(8)
        return self._about_image("bit-flipped image", bytes(image))

    def _bomb(self) -> Hostile:
        return self._about_image("decompression bomb", _bomb(self._random.choice([8_000, 20_000])), is_good=False)

    def _huge(self) -> Hostile:
        width, height = self._random.choice([(2**31 - 1, 1), (1, 2**31 - 1), (65_535, 65_535), (100_000, 100_000)])
        return self._about_image("huge dimensions", _png(width, height, depth=8, data=b""), is_good=False)

    def _animated(self) -> Hostile:
        image = _animation(self._random.choice(["GIF", "WEBP", "PNG", "TIFF"]), self._random.randint(2, 12))
        return self._about_image("animated image", image, is_good=True)

    def _unusual(self) -> Hostile:
        mode, format_ = self._random.choice(
            [
                ("CMYK", "JPEG"),
                ("L", "JPEG"),
                ("I;16", "PNG"),
                ("I;16", "TIFF"),
                ("1", "PNG"),
                ("P", "GIF"),
                ("LA", "PNG"),
            ]
        )
        image = PIL.Image.new(mode, (30, 20)) if mode == "I;16" else self._picture.convert(mode)
        exif = PIL.Image.Exif()
        exif[0x0112] = self._random.randint(0, 9)  # orientation; 0 and 9 are invalid
        file = io.BytesIO()
        image.save(file, format_, **({"exif": exif} if format_ in ("JPEG", "PNG") else {}))
        return self._about_image("unusual image", file.getvalue(), is_good=True)

    def _noise(self) -> Hostile:
        magic = self._file()[: self._random.choice([0, 4, 16])]
        return self._about_image("noise for an image", magic + self._random.randbytes(self._random.randrange(3000)))

    def _escaped(self) -> Hostile:
        """A data: URI of percent-encoded characters only, which are slow to decode one by one."""
        escape = self._random.choice([b"%41", b"%2B", b"%3d", b"%25", b"%"])
        return self._about_image("escaped base64", b"data:;base64," + escape * 500_000, is_good=False)

    def _mutated_protobuf(self) -> Hostile:
        request = bytearray(TaskRequest(phrase_grounding={"caption": "a dog"}, generation=_SHORT).SerializeToString())
        for _ in range(self._random.randint(1, 4)):
            request[self._random.randrange(len(request))] = self._random.randrange(256)
        return self._about_request("mutated protobuf", bytes(request))

    def _mutated_json(self) -> Hostile:
        start = self._random.choice([b"", b"\n", b" \r\n", b"\xef\xbb\xbf"])
        words = self._random.choice([b'"caption": "a dog"', b'"phrases": ["a dog", "a cat"]'])
        request = bytearray(start + b'{"phrase_grounding": {%b}, "generation": {"max_new_tokens": 2}}' % words)
        for _ in range(self._random.randint(1, 4)):
            request[self._random.randrange(1, len(request))] = self._random.randrange(256)
        return self._about_request("mutated JSON", bytes(request))

    def _noise_request(self) -> Hostile:
        return self._about_request("noise for a request", self._random.randbytes(self._random.randrange(200)))

    def _special_tokens(self) -> Hostile:
        words = [
            "</s>",
            "<s>",
            "<pad>",
            "<image>",
            "<mask>",
            "<loc_5>",
            "<OD>",
            "\0",
            "a dog",
            "\u202e",
            "🙂",
            "é" * 40,
        ]
        caption = " ".join(self._random.choices(words, k=self._random.randint(1, 12)))
        request = TaskRequest(phrase_grounding={"caption": caption}, generation=_SHORT)
        return self._about_request("special tokens in text", request.SerializeToString(), is_good=None)

    def _wild_box(self) -> Hostile:
        values = [float("nan"), float("inf"), -1.0, 1e30, -1e30, 0.0, 10.0, 59.0]
        box = BoundingBox(**{name: self._random.choice(values) for name in ("x_min", "y_min", "x_max", "y_max")})
        return self._about_request(
            "wild box", TaskRequest(region_to_category={"region": box}, generation=_SHORT).SerializeToString()
        )

    def _wild_options(self) -> Hostile:
        numbers = [-(2**31), -1, 0, 1, 9, 2**31 - 1]
        options = {
            name: self._random.choice(numbers)
            for name in ("min_new_tokens", "num_beams", "no_repeat_ngram_size")
            if self._random.random() < 0.5
        }
        for name in ("length_penalty", "repetition_penalty"):
            options[name] = self._random.choice([float("nan"), float("-inf"), 1e30, 1.0])
        request = TaskRequest(caption={}, generation={"max_new_tokens": 2, **options})
        return self._about_request("wild options", request.SerializeToString())

    def _invalid_utf8(self) -> Hostile:
        """A phrase that is not text, in either encoding of a request."""
        word = self._random.choice([b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"])
        caption = b"dog " * self._random.randrange(3) + word + b" cat" * self._random.randrange(3)
        if self._random.random() < 0.5:
            return self._about_request("invalid UTF-8", b'{"phrase_grounding": {"caption": "%b"}}' % caption, False)
        phrase = _length_delimited(1, caption)
        field = TaskRequest.DESCRIPTOR.fields_by_name["phrase_grounding"].number
        return self._about_request("invalid UTF-8", _length_delimited(field, phrase), is_good=False)

    def _wrong_tensors(self) -> Hostile:
        image, request = element(self._files["PNG"]), element(self._request)
        image_tensor, request_tensor = ("IMAGE", [1, 1], "BYTES", image), ("REQUEST", [1, 1], "BYTES", request)
        inputs = self._random.choice(
            [
                [image_tensor],
                [request_tensor],
                [],
                [image_tensor, image_tensor],
                [image_tensor, request_tensor, ("EXTRA", [1, 1], "BYTES", element(b"?"))],
                [image_tensor, ("REQUEST", [1], "BYTES", request)],
                [image_tensor, ("REQUEST", [1, 1, 1], "BYTES", request)],
                [image_tensor, ("REQUEST", [1, 2], "BYTES", request + request)],
                [image_tensor, ("REQUEST", [2, 1], "BYTES", request + request)],
                [image_tensor, ("REQUEST", [1, 0], "BYTES", b"")],
                [("IMAGE", [0, 1], "BYTES", b""), ("REQUEST", [0, 1], "BYTES", b"")],
                [("IMAGE", [-1, 1], "BYTES", image), request_tensor],
                [("IMAGE", [2**31, 1], "BYTES", image), ("REQUEST", [2**31, 1], "BYTES", request)],
                [("IMAGE", [1, 2**62], "BYTES", image), ("REQUEST", [1, 2**62], "BYTES", request)],
                [("IMAGE", [17, 1], "BYTES", image * 17), ("REQUEST", [17, 1], "BYTES", request * 17)],
                [("IMAGE", [1, 1], "UINT8", b"\0"), request_tensor],
                [("IMAGE", [1, 1], "FP32", bytes(4)), request_tensor],
                [("IMAGE", [1, 1], "COMPLEX", image), request_tensor],
                [("IMAGE", [1, 1], "BYTES", image + b"\0"), request_tensor],
                [("IMAGE", [1, 1], "BYTES", b"\1"), request_tensor],
                [image_tensor, ("REQUEST", [1, 1], "BYTES", b"")],
            ]
        )
        return self._of_tensors("wrong tensors", inputs)

    def _cut_tensors(self) -> Hostile:
        """An element whose length exceeds the bytes that follow."""
        image, request = element(self._files["PNG"]), element(self._request)
        cut = self._random.choice([b"\xff\xff\xff\xff" + image, image[: self._random.randrange(4, len(image))]])
        tensors = [("IMAGE", [1, 1], "BYTES", cut), ("REQUEST", [1, 1], "BYTES", request)]
        return self._of_tensors("cut tensors", tensors)

    def _of_tensors(self, kind: str, tensors: list[tuple[str, list[int], str, bytes]]) -> Hostile:
        message = service_pb2.ModelInferRequest(model_name="florence2")
        for tensor in tensors:
            add_tensor(message, *tensor)
        return Hostile(kind, self._files["PNG"], self._request, False, wrong_tensors=message)


def _length_delimited(field: int, content: bytes) -> bytes:
    """A field of a protobuf message, https://protobuf.dev/programming-guides/encoding/."""
    assert max(8 * field, len(content)) < 128, "each fits into one byte"
    return bytes([field << 3 | 2, len(content)]) + content


def _encoded(picture: PIL.Image.Image, format_: str) -> bytes:
    if format_ == "PNG":
        return png(picture)
    file = io.BytesIO()
    picture.save(file, format_)
    return file.getvalue()


@functools.cache
def _bomb(side: int) -> bytes:
    """A square image, nearly all pixels of which are missing from the file."""
    return _png(side, side, depth=1, data=zlib.compress(b"\0" * (side // 8 + 1) * 2_000, 9))


@functools.cache
def _animation(format_: str, frames: int) -> bytes:
    picture = PIL.Image.fromarray(np.random.default_rng(frames).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    pictures = [picture.rotate(10 * number) for number in range(frames)]
    file = io.BytesIO()
    pictures[0].save(file, format_, save_all=True, append_images=pictures[1:])
    return file.getvalue()


def _png(width: int, height: int, depth: int, data: bytes) -> bytes:
    """A gray PNG file with this header and these compressed rows, whether or not they fit together."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
