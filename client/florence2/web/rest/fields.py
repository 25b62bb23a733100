"""The fields of a request's body: their types, and reading their values from JSON and from forms.

Only types are checked here. Ranges and everything else are rules of the client and the server.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeAlias

from florence2.errors import InvalidArgumentError

Choice: TypeAlias = str | bool

REGION_SIDES: Final = 4
# A number in JSON. The pattern is also part of the schema of forms.
NUMBER_PATTERN: Final = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_NUMBER: Final = re.compile(NUMBER_PATTERN)
# int() raises an error for longer texts, and no field accepts a number with so many digits.
_MOST_CHARACTERS: Final = 400
# No request needs more. Beyond, a body of a few megabytes becomes objects of a gigabyte.
_MOST_VALUES: Final = 100_000
_MOST_NAME: Final = 200


class Kind(Enum):
    """The type of a field's values, in words for errors."""

    TEXT = "text"
    PHRASES = "text, or one or more texts"
    LABELS = "an array of texts"
    REGION = "four numbers: x_min, y_min, x_max, y_max in pixels"
    INTEGER = "an integer"
    NUMBER = "a number"
    BOOLEAN = "true or false"
    CHOICE = "one of several values"
    MESSAGE = "a JSON object"


@dataclass(frozen=True)
class Field:
    """A field of a request's body.

    Attributes:
        name: the field's, which is the name of the client's argument.
        kind: the type of its values.
        description: what it is, in Markdown.
        is_required: whether it must be given. All others may also be null in JSON, which is as if they were absent.
        choices: the values, if its kind is CHOICE.
        default: the value that applies if the field is not given; None if the server decides, or if it has no default.
        least: the lowest value that is accepted, if its kind is INTEGER or NUMBER. For the description only.
        most: the highest.
        above: what values must exceed, if that is not accepted itself.
    """

    name: str
    kind: Kind
    description: str
    is_required: bool = False
    choices: tuple[Choice, ...] = ()
    default: Choice | None = None
    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf

    @property
    def limits(self) -> dict[str, float]:
        """The limits in the words of JSON Schema."""
        limits = {"minimum": self.least, "exclusiveMinimum": self.above, "maximum": self.most}
        return {name: limit for name, limit in limits.items() if math.isfinite(limit)}

    @property
    def accepted(self) -> str:
        """The accepted values, for errors."""
        if self.kind is Kind.CHOICE:
            *others, last = [json.dumps(choice) for choice in self.choices]
            return f"{', '.join(others)} or {last}"
        accepted: str = self.kind.value
        return accepted

    def of_json(self, value: Any) -> Any:
        """The value of a client's argument, from a value in JSON.

        Raises:
            InvalidArgumentError: it has the wrong type, or is not one of the choices.
        """
        if value is None and not self.is_required:
            return None
        match self.kind, value:
            case Kind.INTEGER, int() | float() if not isinstance(value, bool) and is_integral(value):
                return int(value)
            case Kind.NUMBER, int() | float() if not isinstance(value, bool):
                return self._finite(value)
            case Kind.BOOLEAN, bool():
                return value
            case Kind.CHOICE, str() | bool() if value in self.choices:
                return value
            case ((Kind.TEXT | Kind.PHRASES), str()):
                return value
            case ((Kind.PHRASES | Kind.LABELS), list()) if all(isinstance(each, str) for each in value):
                return value
            case Kind.REGION, list() if len(value) == REGION_SIDES and all(map(_is_number, value)):
                return [self._finite(each) for each in value]
            case Kind.MESSAGE, dict():
                return value
        raise self._refusal(value)

    def of_form(self, values: Sequence[str]) -> Any:
        """The value of a client's argument, from the fields of this name in a form, of which there is at least one.

        Raises:
            InvalidArgumentError: it cannot be read, is not one of the choices, or is given more than once, unless it is
                an array.
        """
        match self.kind:
            case Kind.LABELS:
                return list(values)
            case Kind.PHRASES if len(values) > 1:
                return list(values)
            case Kind.REGION:
                return self._region(values)
        if len(values) > 1:
            raise InvalidArgumentError.of_field(self.name, f"{len(values)} values", "one value")
        return self._of_text(values[0])

    def _of_text(self, text: str) -> Any:
        match self.kind:
            case Kind.TEXT | Kind.PHRASES:
                return text
            case Kind.CHOICE:
                return self.of_json({"true": True, "false": False}.get(text, text))
            case Kind.BOOLEAN if text in ("true", "false"):
                return text == "true"
            case Kind.INTEGER | Kind.NUMBER if (number := number_of(text)) is not None:
                return self._of_number(number, text)
            case Kind.MESSAGE:
                return self.of_json(parsed_json(self.name, text))
        raise self._refusal(text)

    def _of_number(self, number: int | float, text: str) -> int | float:
        if self.kind is Kind.NUMBER:
            return self._finite(number)
        if not is_integral(number):
            raise self._refusal(text)
        return int(number)

    def _region(self, values: Sequence[str]) -> list[float]:
        numbers = [number_of(text.strip()) for text in ",".join(values).split(",")]
        if len(numbers) != REGION_SIDES:
            raise self._refusal(",".join(values))
        return [self._finite(number) if number is not None else self._refuse(",".join(values)) for number in numbers]

    def _finite(self, number: int | float) -> float:
        try:
            if math.isfinite(value := float(number)):
                return value
        except OverflowError:
            pass
        raise self._refusal(number, "a number that fits into 64 bits")

    def _refuse(self, value: object) -> float:
        raise self._refusal(value)

    def _refusal(self, value: object, accepted: str = "") -> InvalidArgumentError:
        return InvalidArgumentError.of_field(self.name, value, accepted or self.accepted)


def is_integral(number: int | float) -> bool:
    """Whether a number of JSON is an integer: 3, 3.0 and 3e0 are the same."""
    return isinstance(number, int) or number.is_integer()


def number_of(text: str) -> int | float | None:
    """The number that a text is in JSON; None if it is not a number."""
    if len(text) > _MOST_CHARACTERS or not _NUMBER.fullmatch(text):
        return None
    number: int | float = json.loads(text)
    return number


def parsed_json(name: str, text: str | bytes) -> Any:
    """Parse JSON text strictly.

    Args:
        name: of what is parsed, for errors: `"body"`, or a field's name.
        text: the text; bytes are UTF-8, with or without a byte order mark.

    Raises:
        InvalidArgumentError: it is not JSON, has NaN or Infinity, too many values, or a key that is too long or
            given twice.
    """

    def refuse(constant: str) -> None:
        raise InvalidArgumentError.of_field(name, constant, "JSON, which has only finite numbers")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if too_long := next((key for key in members if len(key) > _MOST_NAME), None):
            raise InvalidArgumentError.of_field(name, _start(too_long), f"names of at most {_MOST_NAME} characters")
        if len(members) < len(pairs):
            ((twice, count),) = Counter(key for key, _ in pairs).most_common(1)
            raise InvalidArgumentError.of_field(twice, f"{count} values", "one value")
        return members

    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        if sum(map(decoded.count, ",[{")) > _MOST_VALUES:
            raise InvalidArgumentError.of_field(name, _start(text), f"JSON of at most {_MOST_VALUES:,} values")
        return json.loads(decoded, parse_constant=refuse, object_pairs_hook=unique)
    except UnicodeDecodeError as error:
        raise InvalidArgumentError.of_field(name, f"{len(text)} bytes", f"JSON in UTF-8 ({error})") from None
    except InvalidArgumentError:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError.of_field(name, _start(text), f"JSON ({error})") from None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _start(text: str | bytes) -> str:
    shown = text[:80]
    return shown.decode(errors="replace") if isinstance(shown, bytes) else shown
