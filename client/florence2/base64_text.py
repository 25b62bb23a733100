"""Image files sent as text: base64, standard or URL-safe, and base64 `data:` URIs."""

import binascii
import re
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

Decode: TypeAlias = Callable[[bytes | memoryview], bytes]
"""Decodes standard base64; raises `binascii.Error` for anything else."""

_decode: Decode = partial(binascii.a2b_base64, strict_mode=True)
_WHITE_SPACE = b" \t\r\n\f\v"
_STANDARD_ALPHABET = bytes.maketrans(b"-_", b"+/")
# The percent-encodings that are decoded in a URI. Base64 needs no others, and general unquoting takes gigabytes for a
# few megabytes.
_ESCAPES = {b"%2B": b"+", b"%2F": b"/", b"%3D": b"=", b"%2D": b"-", b"%5F": b"_", b"%20": b"", b"%0A": b"", b"%0D": b""}
# No image file begins with a thousand of these characters: the header of every format contains zeros or other binary
# bytes.
_TEXT = re.compile(rb"[A-Za-z0-9+/=_\-\s]+")
_PROBE_BYTES = 1024
_DATA_URI_HEAD = re.compile(rb"\s*data:[^,]*;\s*base64\s*,", re.IGNORECASE)


def image_file(data: bytes, decode: Decode = _decode) -> bytes:
    """The image file in `data`, which is the file itself or its text.

    Args:
        data: an image file; its base64 text, standard or URL-safe, padded or not, with or without white space; or a
            base64 `data:` URI (RFC 2397) with any media type and parameters, in which line ends, spaces and the base64
            characters that are not letters or digits may be escaped.
        decode: the base64 decoder; the server has a faster one than the standard library.

    Returns:
        The file's bytes. Anything else is returned unchanged: it is not an image file, and opening it will fail.
    """
    head = _DATA_URI_HEAD.match(data, 0, _PROBE_BYTES)
    if head is None and not _TEXT.fullmatch(data, 0, min(len(data), _PROBE_BYTES)):
        return data
    text = memoryview(data)[head.end() if head else 0 :]
    try:
        return decode(text)
    except binascii.Error:
        return _loosely_decoded(bytes(text), decode, otherwise=data)


def _loosely_decoded(text: bytes, decode: Decode, otherwise: bytes) -> bytes:
    text = _unescaped(text)
    if b"%" in text:
        return otherwise
    text = text.translate(_STANDARD_ALPHABET, _WHITE_SPACE).rstrip(b"=")
    try:
        return decode(text + b"=" * (-len(text) % 4))
    except binascii.Error:
        return otherwise


def _unescaped(text: bytes) -> bytes:
    for escape, character in _ESCAPES.items():
        if b"%" not in text:
            break
        text = text.replace(escape, character).replace(escape.lower(), character)
    return text
