"""Runs a request about many images: progress, answers in their order, errors, pictures, and the exit status."""

import os
import stat
import sys
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from PIL.Image import DecompressionBombError

from florence2 import v1
from florence2.cli.connecting import adapter_name, connected
from florence2.cli.exits import FAILED, SUCCEEDED, CommandError, complain, reason, status_of
from florence2.cli.option_groups import ItemOptions, OutputOptions, ServerOptions
from florence2.cli.pictures import Pictures
from florence2.cli.printing import Printer, printer
from florence2.cli.progress import ProgressBar, progress_bar
from florence2.client import Answer, Client, MapOutcome
from florence2.errors import Florence2Error, InvalidArgumentError
from florence2.images import ImageSource
from florence2.options import TaskOptions, set_options
from florence2.plans import check_plan

STANDARD_INPUT: Final = "-"


@dataclass(frozen=True)
class Run:
    """A task command with all options of its command line."""

    images: list[str]
    request: v1.TaskRequest
    server: ServerOptions
    adapter: str | None
    output: OutputOptions
    generation: TaskOptions
    items: ItemOptions
    columns: tuple[str, ...]

    def run(self) -> int:
        """Run the request about each image. Returns the exit status.

        Raises:
            CommandError: the command line is wrong, or no server can be reached. No image was sent.
        """
        self._complete_request()
        sources = _sources(self.images)
        pictures = Pictures.of(self.output.draw, self.images)
        show = printer(is_json=self.output.json, columns=self.columns, count=len(self.images))
        status = SUCCEEDED
        with (
            connected(self.server, self.adapter) as client,
            closing(self._outcomes(client, sources)) as outcomes,
            progress_bar(len(self.images)) as bar,
        ):
            for outcome in outcomes:
                status = max(status, self._show(outcome, pictures, show, bar))
        return status

    def _outcomes(self, client: Client, sources: list[ImageSource]) -> Generator[MapOutcome[ImageSource], None, None]:
        filters = cast("TaskOptions", self.items.given())
        try:
            return client.map(sources, self.request, concurrency=self.output.concurrency, **filters)
        except InvalidArgumentError as error:  # the answer has nothing that a filter is about
            raise CommandError(str(error)) from error

    def _complete_request(self) -> None:
        """Add adapter and options to the request, and check it as a whole before any image is sent."""
        try:
            name = adapter_name(self.server, self.adapter)
            set_options(self.request, self.generation if name is None else {**self.generation, "adapter": name})
            check_plan(self.request)
        except InvalidArgumentError as error:
            raise CommandError(str(error)) from error

    def _show(
        self,
        outcome: MapOutcome[ImageSource],
        pictures: Pictures | None,
        show: Printer,
        bar: ProgressBar,
    ) -> int:
        """Print and draw an image's outcome. Returns its exit status."""
        name, answer = self.images[outcome.index], outcome.answer
        with bar.paused():
            if answer is None:
                assert outcome.error is not None, "an image has an answer or an error"
                show.error(name, outcome.error)
                complain(f"{name}: {reason(outcome.error)}")
                return status_of(outcome.error)
            show.answer(name, answer)
            status = _warn(name, answer)
            return max(status, SUCCEEDED if pictures is None else _draw(pictures, outcome, answer, name))


def _sources(names: Sequence[str]) -> list[ImageSource]:
    """What to send for each name of the command line."""
    if names.count(STANDARD_INPUT) > 1:
        raise CommandError("IMAGE: got - twice, but standard input can be read only once")
    return [_standard_input() if name == STANDARD_INPUT else _source(name) for name in names]


def _source(name: str) -> ImageSource:
    """A file's name; the content of a pipe, which is read here, where Ctrl-C ends it."""
    try:
        kind = stat.S_IFMT(os.stat(name).st_mode)  # noqa: PTH116 - not all names are paths
    except (OSError, ValueError):
        return name  # that image's error
    try:
        return Path(name).read_bytes() if kind in (stat.S_IFIFO, stat.S_IFCHR) else name
    except OSError as error:
        raise CommandError(f"{name}: {reason(error)}") from error


def _standard_input() -> bytes:
    data = sys.stdin.buffer.read()
    if not data:
        raise CommandError("IMAGE: standard input is empty, expected an image file")
    return data


def _warn(name: str, answer: Answer) -> int:
    """Say what is missing in an answer. Returns the exit status."""
    if answer.is_truncated:
        complain(f"{name}: the answer was cut after {answer.usage.generated_tokens} tokens (--max-new-tokens)")
    errors = [step.outcome for step in answer.steps if isinstance(step.outcome, Florence2Error)]
    for error in errors:
        complain(f"{name}: {error}")
    return FAILED if errors else SUCCEEDED


def _draw(pictures: Pictures, outcome: MapOutcome[ImageSource], answer: Answer, name: str) -> int:
    try:
        pictures.save(outcome.index, outcome.image, answer.result)
    except (Florence2Error, OSError, DecompressionBombError) as error:
        complain(f"{name}: --draw: {reason(error)}")
        return FAILED
    return SUCCEEDED
