"""Images in Parquet files."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from florence2.bulk.extras import load_package
from florence2.bulk.items import IsWanted, Item, id_text, listed_item
from florence2.bulk.storage import Location
from florence2.errors import InvalidArgumentError

SUFFIXES: Final = (".parquet", ".pq")
"""Names of Parquet files end with one of these."""

_ROWS: Final = 16  # in memory at once, with the bytes of their images
_INPUTS: Final = ("text", "prompt", "region")


class TableSource:
    """The images of a Parquet file, whose column `image` has bytes, paths, or structs of `bytes` and `path` as the
    datasets of Hugging Face have them. Columns named `id`, `text`, `prompt`, `region`, or like a task, are inputs.

    Paths are relative to the file's folder, absolute, or URLs. Without a column `id`, it is a prefix and
    the row's number, from 0.
    """

    has_inputs = True

    def __init__(self, table: Location, prefix: str, task_names: frozenset[str] = frozenset()) -> None:
        self._table = table
        self._prefix = prefix
        self._folder = table.parent
        self._inputs = {*_INPUTS, *task_names}
        load_package("pyarrow.parquet")

    def items(self, is_wanted: IsWanted) -> Iterator[Item]:
        """The images. A few rows are held in memory."""
        with self._table.open() as file:
            table = load_package("pyarrow.parquet").ParquetFile(file)
            names = table.schema_arrow.names
            if "image" not in names:
                raise InvalidArgumentError.of_field(self._table.url, names, 'a column named "image"')
            columns = [name for name in names if name in ("id", "image") or name in self._inputs]
            number = 0
            for batch in table.iter_batches(batch_size=_ROWS, columns=columns):
                for row in batch.to_pylist():
                    id_ = id_text(f"{self._prefix}{number}" if row.get("id") is None else str(row["id"]))
                    if is_wanted(id_):
                        yield self._item(id_, number, row)
                    number += 1

    def count(self) -> int:
        """The number of rows, by the file's footer."""
        with self._table.open() as file:
            return int(load_package("pyarrow.parquet").ParquetFile(file).metadata.num_rows)

    def _item(self, id_: str, number: int, row: Mapping[str, Any]) -> Item:
        image = row["image"]
        if isinstance(image, Mapping):
            image = image.get("bytes") or image.get("path")
        inputs = {name: value for name, value in row.items() if name not in ("id", "image") and value is not None}
        place = f"{self._table.url}::{number}"
        if isinstance(image, bytes) and image:
            return Item(id_, place, image, inputs)
        if isinstance(image, str) and image:
            return listed_item(id_, image, self._folder, inputs)
        return Item(id_, place, b"", fault=f"row {number} has neither bytes nor a path in the column image")
