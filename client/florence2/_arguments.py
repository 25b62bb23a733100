"""Arguments from callers who use no type checker: one of the wrong type is a TypeError that names it."""

import math
import numbers
from collections.abc import Sequence

from florence2.errors import InvalidArgumentError, require_type, wrong_type


def check_text(argument: str, value: object, field: str = "") -> str:
    """A text that can travel.

    Args:
        argument: the argument's name.
        value: what was given.
        field: its full path in the request, if it goes there; else it is called by its name.

    Raises:
        TypeError: not a str.
        InvalidArgumentError: UTF-8 cannot carry it: it has a lone surrogate.
    """
    if not isinstance(value, str):
        raise wrong_type(argument, value, "a str")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidArgumentError.of_field(field or argument, value, "text that UTF-8 can carry") from None
    return value


def check_texts(argument: str, value: object, field: str = "") -> list[str]:
    """A sequence of texts that can travel; arguments and errors as those of `check_text`."""
    if isinstance(value, bytes | bytearray | memoryview) or not isinstance(value, Sequence):
        raise wrong_type(argument, value, "a str or a sequence of str")
    texts = enumerate(value)
    return [check_text(f"{argument}[{index}]", text, f"{field or argument}[{index}]") for index, text in texts]


def check_seconds(argument: str, value: object) -> float:
    """A duration.

    Raises:
        TypeError: not a number.
        InvalidArgumentError: not above 0, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise wrong_type(argument, value, "a number of seconds")
    seconds = float(value)
    if not 0 < seconds < math.inf:
        raise InvalidArgumentError.of_field(argument, value, "seconds above 0 and finite")
    return seconds


def check_integer(argument: str, value: object) -> int:
    """A whole number.

    Raises:
        TypeError: not an integer, or a bool.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise wrong_type(argument, value, "an int")
    return int(value)


def check_optional(argument: str, value: object, accepted: type) -> None:
    """Raise a TypeError unless the value is None or of the type that is accepted."""
    if value is not None:
        require_type(argument, value, accepted)
