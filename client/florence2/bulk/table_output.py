"""Results as a Parquet file."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

from florence2.bulk.extras import load_package
from florence2.bulk.storage import Location

_ROWS: Final = 1000  # in memory at once


def write_table(target: Location, lines: Iterator[dict[str, Any]], task_names: Sequence[str]) -> None:
    """Write results in the columns `id`, `image`, `width`, `height`, `truncated` (names of tasks), `usage` (JSON) and
    one for each task, which has its result as JSON.
    """
    pyarrow = load_package("pyarrow")
    parquet = load_package("pyarrow.parquet")
    text, number = pyarrow.string(), pyarrow.int32()
    schema = pyarrow.schema(
        [
            ("id", text),
            ("image", text),
            ("width", number),
            ("height", number),
            ("truncated", pyarrow.list_(text)),
            ("usage", text),
            *((name, text) for name in task_names),
        ]
    )
    with target.replaced() as file, parquet.ParquetWriter(file, schema) as writer:
        while rows := [_row(line, task_names) for line in islice(lines, _ROWS)]:
            writer.write_table(pyarrow.Table.from_pylist(rows, schema))


def _row(line: dict[str, Any], task_names: Sequence[str]) -> dict[str, Any]:
    width, height = line["image_size"]
    return {
        "id": line["id"],
        "image": line["image"],
        "width": width,
        "height": height,
        "truncated": line.get("truncated", []),
        "usage": _json(line["usage"]),
        **{name: _json(line["results"][name]) for name in task_names},
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
