"""Lists of images: JSON Lines and CSV."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from florence2.bulk.items import IsWanted, Item, id_text, listed_item
from florence2.bulk.storage import Location

SUFFIXES: Final = tuple(f"{suffix}{packed}" for suffix in (".jsonl", ".ndjson", ".csv") for packed in ("", ".gz"))
"""Names of manifests end with one of these."""


class ManifestSource:
    """The images that a file lists, one in each line, with `image` and optionally `id` and inputs of tasks.

    `image` is a path relative to the manifest's folder, an absolute path, or a URL. Without an `id`, it is a prefix
    and the number of the line, from 1: blank lines count, and in a CSV file the header does not.
    """

    has_inputs = True

    def __init__(self, manifest: Location, prefix: str) -> None:
        self._manifest = manifest
        self._prefix = prefix
        self._folder = manifest.parent
        self._is_csv = ".csv" in manifest.name.lower()

    def items(self, is_wanted: IsWanted) -> Iterator[Item]:
        """The images. One line is held in memory."""
        for number, fields in self._lines():
            fault = fields if isinstance(fields, str) else _fault(fields)
            given = fields.get("id") if isinstance(fields, Mapping) else None
            id_ = id_text(f"{self._prefix}{number}" if given in (None, "") else str(given))
            if not is_wanted(id_):
                continue
            if fault or isinstance(fields, str):
                yield Item(id_, f"{self._manifest.url}::{number}", b"", fault=f"line {number} {fault}")
            else:
                inputs = {name: value for name, value in fields.items() if name not in ("id", "image")}
                yield listed_item(id_, fields["image"], self._folder, inputs)

    def count(self) -> int:
        """The number of lines, by reading the file."""
        return sum(1 for _ in self._lines(is_counting=True))

    def _lines(self, *, is_counting: bool = False) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
        """The fields of each line, or what is wrong with it, and its number."""
        with self._manifest.open("infer") as file:
            if self._is_csv:
                rows = csv.DictReader(io.TextIOWrapper(file, "utf-8-sig", newline=""))
                yield from ((number, _of_row(row)) for number, row in enumerate(rows, 1))
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, "" if is_counting else _of_json(line)


def _of_row(row: Mapping[Any, Any]) -> Mapping[str, Any]:
    """The fields of a CSV row that have a name and a value. A row may have more values than the header has names."""
    return {name: value for name, value in row.items() if name is not None and value not in (None, "")}


def _of_json(line: bytes) -> Mapping[str, Any] | str:
    try:
        fields = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return f"is not JSON: {error}"
    return fields if isinstance(fields, dict) else f"is not a JSON object: {line[:80].decode(errors='replace').strip()}"


def _fault(fields: Mapping[str, Any]) -> str | None:
    image = fields.get("image")
    return None if isinstance(image, str) and image else f"has no path or URL in the field image: got {image!r}"
