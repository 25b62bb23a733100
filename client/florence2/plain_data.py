"""Results as plain data: dictionaries, lists, text and numbers, which JSON can express."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt


class PlainData(ABC):
    """Base of everything that can be converted to plain data and to JSON."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON. docs/results.md describes its form.

        Numbers are as short as float32 allows. What is unknown is left out, except the image's size, which is None; a
        coordinate that is not finite is None.
        """

    def to_json(self, indent: int | None = None) -> str:
        """`to_dict` as JSON text, with Unicode as it is.

        Args:
            indent: spaces per level; None for one line.
        """
        return json_text(self.to_dict(), indent)


def json_text(value: Any, indent: int | None = None) -> str:
    """Plain data as JSON text, with Unicode as it is as far as UTF-8 can express it.

    Args:
        value: dictionaries, lists, text and finite numbers.
        indent: spaces per level; None for one line.
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return json.dumps(value, indent=indent, allow_nan=False)
    return text


def number(value: float | None) -> float | None:
    """The shortest number that is the same in float32; None if it is None or not finite."""
    return None if value is None or not isfinite(value) else float(str(np.float32(value)))


def numbers(values: npt.NDArray[np.float32]) -> list[Any]:
    """The elements as nested lists of numbers, as by `number`."""
    flat = [number if isfinite(number) else None for number in map(float, values.ravel().astype(str).tolist())]
    nested: list[Any] = np.array(flat, object).reshape(values.shape).tolist()
    return nested


def numbers_or_none(values: npt.NDArray[np.float32] | None, count: int) -> list[Any]:
    """The elements as a list of numbers; None for each of `count` elements if they are unknown."""
    return [None] * count if values is None else numbers(values)


def size_list(image_size: tuple[int, int] | None) -> list[int] | None:
    """An image's size as a list: width, height."""
    return None if image_size is None else list(image_size)


def items_data(**columns: Sequence[Any]) -> list[dict[str, Any]]:
    """A dictionary for each item, of one element of each column; elements that are None are left out."""
    rows = zip(*columns.values(), strict=True)
    return [{name: value for name, value in zip(columns, row, strict=True) if value is not None} for row in rows]


def error_data(error: Exception) -> dict[str, Any]:
    """An error in the place of a result."""
    return {"error": {"type": type(error).__name__, "message": str(error)}}


def result_or_error_data(result: PlainData | None, error: Exception | None) -> dict[str, Any] | None:
    """A result, or the error in its place; None if there is neither."""
    if result is not None:
        return result.to_dict()
    return None if error is None else error_data(error)
