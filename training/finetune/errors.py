"""The errors of a run that its user can correct. Messages are one line."""

from __future__ import annotations


class FinetuneError(Exception):
    """The run cannot start, or cannot continue."""


class SettingError(FinetuneError):
    """A setting is wrong. The message names the setting, its value and what is expected."""

    def __init__(self, name: str, value: object, expected: str) -> None:
        super().__init__(f"{name}: got {value!r}, expected {expected}")


class DataError(FinetuneError):
    """The data is wrong. The message names the file, the line or the entry, the field and its value."""

    def __init__(self, origin: str, field: str, value: object, expected: str) -> None:
        super().__init__(f"{origin}: {field}: got {_shown(value)}, expected {expected}")


class ImageError(DataError):
    """An image cannot be read.

    Args:
        message: the message. Raised in a process that decodes images, the error is raised anew in the run's own, and
            torch then puts a traceback in front of the message.
    """

    def __init__(self, message: str) -> None:
        name = f"{type(self).__module__}.{type(self).__qualname__}: "
        Exception.__init__(self, message.strip().rpartition("\n")[2].removeprefix(name))

    @classmethod
    def of(cls, file: object, value: object, expected: str) -> ImageError:
        """The error about an image file."""
        return cls(str(DataError(str(file), "image", value, expected)))


def _shown(value: object, most: int = 80) -> str:
    shown = repr(value)
    return shown if len(shown) <= most else f"{shown[:most]}…"
