"""Prints answers to standard output: JSON lines, tables for a terminal, or columns separated by tabs for a pipe."""

import json
import sys
from collections.abc import Sequence
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from florence2.cli.exits import visible
from florence2.cli.tables import COLUMNS, Section, sections
from florence2.client import Answer
from florence2.errors import Florence2Error
from florence2.plain_data import error_data


class Printer(Protocol):
    """Prints one image's outcome after the other."""

    def answer(self, name: str, answer: Answer) -> None:
        """Print the answer about an image of this name."""

    def error(self, name: str, error: Florence2Error | OSError) -> None:
        """Print an error, if this format includes errors."""


class JsonPrinter:
    """One line of JSON for each image, also for one without an answer."""

    def answer(self, name: str, answer: Answer) -> None:
        """Print the answer with the image's name."""
        print_json({"image": name, **answer.to_dict()})

    def error(self, name: str, error: Florence2Error | OSError) -> None:
        """Print the error's type and message."""
        print_json({"image": name, **error_data(error)})


class TabPrinter:
    """Columns separated by tabs, for pipes. The first one is the image's name, if there are several images."""

    def __init__(self, columns: Sequence[str], *, is_named: bool) -> None:
        self._columns = columns
        self._is_named = is_named

    def answer(self, name: str, answer: Answer) -> None:
        """Print a line for a text and for each row of a table."""
        for section in sections(answer.result, self._columns):
            for row in section.rows if section.header else [[section.text]]:
                _write("\t".join([visible(name), *row] if self._is_named else row))

    def error(self, name: str, error: Florence2Error | OSError) -> None:
        """Nothing: errors are on standard error."""


class TablePrinter:
    """Tables as wide as the terminal."""

    def __init__(self, console: Console, columns: Sequence[str], *, is_named: bool) -> None:
        self._console = console
        self._columns = columns
        self._is_named = is_named

    def answer(self, name: str, answer: Answer) -> None:
        """Print texts and tables, under the image's name if there are several images."""
        if self._is_named:
            self._console.print(Text(visible(name), style="bold"), soft_wrap=True)
        for section in sections(answer.result, self._columns):
            self._console.print(rich_table(section) if section.header else Text(section.text))

    def error(self, name: str, error: Florence2Error | OSError) -> None:
        """Nothing: errors are on standard error."""


def printer(*, is_json: bool, columns: Sequence[str], count: int) -> Printer:
    """The printer for standard output and `count` images."""
    if is_json:
        return JsonPrinter()
    console = Console()
    if console.is_terminal:
        return TablePrinter(console, columns, is_named=count > 1)
    return TabPrinter(columns, is_named=count > 1)


def print_records(section: Section) -> None:
    """Print rows with many columns: on a terminal each as a list of names and values, to a pipe separated by tabs."""
    console = Console()
    for row in section.rows:
        if console.is_terminal:
            console.print(_record(section.header, row))
        else:
            _write("\t".join(row))


def _record(names: Sequence[str], values: Sequence[str]) -> Table:
    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in zip(names, values, strict=True):
        if value:
            table.add_row(name, Text(value))
    return table


def rich_table(section: Section) -> Table | Text:
    """A section's table, without columns that are empty throughout; a word if it has no rows."""
    if not section.rows:
        return Text("nothing found", style="dim")
    columns = dict(zip(section.header, zip(*section.rows, strict=True), strict=True))
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    table = Table(header_style="bold")
    for name in shown:
        is_number = name in COLUMNS and COLUMNS[name].is_number
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in zip(*shown.values(), strict=True):
        table.add_row(*map(Text, row))  # not str, in which rich reads [brackets] as markup
    return table


def print_json(value: Any) -> None:
    """Print a line of JSON."""
    _write(json.dumps(value, ensure_ascii=False, allow_nan=False))


def _write(line: str) -> None:
    # Flushed, because the program that reads the pipe waits for it.
    print(line, file=sys.stdout, flush=True)  # noqa: T201 - what a command is for
