"""Outputs of a run: made from its state when all images have been processed."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, TypeAlias, get_args

from florence2.bulk.coco_output import write_coco
from florence2.bulk.extras import load_package
from florence2.bulk.pictures import safe_path
from florence2.bulk.state import State
from florence2.bulk.storage import Location, check_writable
from florence2.bulk.table_output import write_table
from florence2.bulk.tasks import BulkTask
from florence2.errors import InvalidArgumentError

OutputFormat: TypeAlias = Literal["jsonl", "parquet", "coco", "folder"]
FORMATS: Final[tuple[str, ...]] = get_args(OutputFormat)

_BY_SUFFIX: Final[dict[str, OutputFormat]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".json": "coco",
}


class Output:
    """The output of a run.

    Args:
        location: where it is written.
        format_: None for that of the location's suffix: `.jsonl`, `.parquet`, `.json` (COCO), or a folder if it has
            none of these.
        tasks: the tasks of the run.

    Raises:
        InvalidArgumentError: the format is not known, or the tasks have no boxes that COCO could hold.
        MissingPackageError: the format needs a package that is not installed.
    """

    def __init__(self, location: Location, format_: str | None, tasks: Sequence[BulkTask]) -> None:
        self.location = location
        self._tasks = tasks
        self._format = format_ or _format_of(location.name)
        if self._format not in FORMATS:
            raise InvalidArgumentError.of_field("format", format_, f"one of {', '.join(FORMATS)}")
        if self._format == "coco" and [task.is_localizing for task in tasks] != [True]:
            names = ", ".join(task.name for task in tasks)
            raise InvalidArgumentError.of_field("task", names, "one task with boxes or outlines, for an output in COCO")
        if self._format == "parquet":
            load_package("pyarrow.parquet")

    @property
    def failures(self) -> Location:
        """The list of the images that failed, in JSON Lines."""
        name = self.location.name
        stem = name if self._format == "folder" else name.rpartition(".")[0] or name
        return self.location.parent.child(f"{stem}.failed.jsonl")

    @property
    def files(self) -> list[Location]:
        """The files that are written; only the list of failed images if the output is a folder."""
        return [self.failures] if self._format == "folder" else [self.location, self.failures]

    def check(self) -> None:
        """Check that it can be written.

        Raises:
            OSError: it cannot.
        """
        check_writable(self.location, is_folder=self._format == "folder")

    def write(self, state: State) -> None:
        """Write all records of the state, replacing an earlier output."""
        match self._format:
            case "jsonl":
                _write_lines(self.location, state.lines())
            case "parquet":
                write_table(self.location, _lines(state), [task.name for task in self._tasks])
            case "coco":
                write_coco(self.location, lambda: _lines(state), self._tasks[0].name)
            case "folder":
                _write_files(self.location, state.lines())
        if state.counts()[1]:
            _write_lines(self.failures, state.errors())
        else:
            self.failures.remove()


def _format_of(name: str) -> OutputFormat:
    return next((kind for suffix, kind in _BY_SUFFIX.items() if name.lower().endswith(suffix)), "folder")


def _lines(state: State) -> Iterator[dict[str, Any]]:
    return map(json.loads, state.lines())


def _write_lines(target: Location, lines: Iterator[str]) -> None:
    with target.replaced() as file:
        file.writelines(f"{line}\n".encode() for line in lines)


def _write_files(folder: Location, lines: Iterator[str]) -> None:
    for line in lines:
        file = folder.child(f"{safe_path(json.loads(line)['id'])}.json")
        with file.replaced() as content:
            content.write(f"{line}\n".encode())
