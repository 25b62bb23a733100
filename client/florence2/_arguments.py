"""Checks of arguments. A wrong type raises a TypeError that names the argument, for callers without a type checker."""

import math
import numbers
import uuid
from collections.abc import Iterable, Sequence
from typing import Final

from florence2.errors import InvalidArgumentError, require_type, wrong_type

_LOWEST_PRIORITY: Final = 3


def check_text(argument: str, value: object, field: str = "") -> str:
    """Check that a text can be sent.

    Args:
        argument: the argument's name.
        value: the argument.
        field: the argument's full path in the request, for errors; empty if it is not part of the request.

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


def check_count(argument: str, value: object) -> int:
    """Check a number of things.

    Raises:
        TypeError: it is not an integer.
        InvalidArgumentError: it is not at least 1.
    """
    count = check_integer(argument, value)
    if count < 1:
        raise InvalidArgumentError.of_field(argument, value, "at least 1")
    return count


def check_probability(argument: str, value: object) -> float:
    """Check a probability or a score.

    Raises:
        TypeError: it is not a number.
        InvalidArgumentError: it is not 0 to 1.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise wrong_type(argument, value, "a number")
    probability = float(value)
    if not 0 <= probability <= 1:  # NaN is in no range
        raise InvalidArgumentError.of_field(argument, value, "0 to 1")
    return probability


def check_optional(argument: str, value: object, accepted: type) -> None:
    """Raise a TypeError unless the value is None or of the accepted type."""
    if value is not None:
        require_type(argument, value, accepted)


def check_timeout(timeout: object) -> float | None:
    """The timeout in seconds; None: no limit.

    Raises:
        TypeError: it is not a number.
        InvalidArgumentError: it is not finite or not above 0.
    """
    return None if timeout is None else check_seconds("timeout", timeout)


def check_priority(priority: object) -> int:
    """The priority level; 0: the server's default level.

    Raises:
        TypeError: it is not an int.
        InvalidArgumentError: it is not 0 to 3.
    """
    if priority is None:
        return 0
    level = check_integer("priority", priority)
    if level not in range(_LOWEST_PRIORITY + 1):
        limits = f"1 (first) to {_LOWEST_PRIORITY} (last), or 0 for the server's default"
        raise InvalidArgumentError.of_field("priority", priority, limits)
    return level


def check_request_id(request_id: object) -> str:
    """The caller's id for a request, or a random one.

    Raises:
        TypeError: it is not a str.
        InvalidArgumentError: it cannot be encoded as UTF-8.
    """
    return uuid.uuid4().hex if request_id is None else check_text("request_id", request_id)


def refuse_unknown(keywords: Iterable[str], known: Iterable[str]) -> None:
    """Raise the TypeError for an unknown keyword, which `**` would otherwise accept.

    If it were silently dropped, the caller would get the answer to a different request.
    """
    for name in keywords:
        if name not in known:
            raise TypeError(f"unexpected keyword argument {name!r}, expected one of {', '.join(sorted(known))}")
