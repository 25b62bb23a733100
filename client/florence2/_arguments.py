"""Checks of arguments, for callers without a type checker: a wrong type raises a TypeError that names the argument."""

import math
import numbers
from collections.abc import Sequence

from florence2.errors import InvalidArgumentError, require_type, wrong_type


def check_text(argument: str, value: object, field: str = "") -> str:
    """Check that a text can be sent.

    Args:
        argument: the argument's name.
        value: the argument.
        field: its full path in the request, for errors; empty if it is not part of the request.

    Raises:
        TypeError: it is not a str.
        InvalidArgumentError: it cannot be encoded as UTF-8, because it has a lone surrogate.
    """
    if not isinstance(value, str):
        raise wrong_type(argument, value, "a str")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidArgumentError.of_field(field or argument, value, "text that can be encoded as UTF-8") from None
    return value


def check_texts(argument: str, value: object, field: str = "") -> list[str]:
    """Check that a sequence of texts can be sent; arguments and errors as for `check_text`."""
    if isinstance(value, bytes | bytearray | memoryview) or not isinstance(value, Sequence):
        raise wrong_type(argument, value, "a str or a sequence of str")
    texts = enumerate(value)
    return [check_text(f"{argument}[{index}]", text, f"{field or argument}[{index}]") for index, text in texts]


def check_seconds(argument: str, value: object) -> float:
    """Check a duration.

    Raises:
        TypeError: it is not a number.
        InvalidArgumentError: it is not above 0, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise wrong_type(argument, value, "a number of seconds")
    seconds = float(value)
    if not 0 < seconds < math.inf:
        raise InvalidArgumentError.of_field(argument, value, "a finite number of seconds above 0")
    return seconds


def check_integer(argument: str, value: object) -> int:
    """Check an integer.

    Raises:
        TypeError: it is not an integer, or it is a bool.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise wrong_type(argument, value, "an int")
    return int(value)


def check_optional(argument: str, value: object, accepted: type) -> None:
    """Raise a TypeError unless the value is None or of the accepted type."""
    if value is not None:
        require_type(argument, value, accepted)
