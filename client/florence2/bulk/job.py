"""A job: everything that a run needs, checked before the first image."""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from florence2.bulk.exchange import Exchange, Runner
from florence2.bulk.items import Source
from florence2.bulk.outage import Outage
from florence2.bulk.outputs import Output
from florence2.bulk.pictures import PictureFolder
from florence2.bulk.run import BulkRun, Progress
from florence2.bulk.sources import open_sources
from florence2.bulk.state import State
from florence2.bulk.storage import Location, check_writable, is_url
from florence2.bulk.tasks import BulkTask, bulk_tasks, check_tasks
from florence2.errors import InvalidArgumentError
from florence2.options import CallOptions, TaskOptions

_OTHER_THREADS: Final = 4  # those that list images and write records

ShowProgress: TypeAlias = Callable[[Progress, Outage], AbstractContextManager[None]]
"""Shows a run's progress while a `with` block of it runs."""


@dataclass(frozen=True)
class JobSettings:
    """What a job does.

    Attributes:
        sources: folders, globs, image files, manifests, shards and tables, here or in buckets: see `open_sources`.
        tasks: about each image, in one request: see `bulk_tasks`.
        output: a path or a URL.
        format: `"jsonl"`, `"parquet"`, `"coco"` or `"folder"`; None for that of the output's name.
        draw: a folder for drawn pictures; None to draw nothing.
        state: a folder on this machine for the state; None for one beside the output or, if the output is in a bucket,
            in the current directory.
        options: the adapter and the generation options of each request.
        filters: `min_score`, `max_items` and `labels`: which items of the results are kept.
        model: the name of the model or checkpoint; a state of another one is refused.
        timeout: seconds for each attempt; None for the client's own.
        concurrency: the number of images that are sent at a time.
        give_up_seconds: the maximum time without any answer.
        retry_failed: whether images that failed in earlier runs are processed again.
    """

    sources: Sequence[str]
    tasks: Sequence[str]
    output: str
    format: str | None = None
    draw: str | None = None
    state: str | os.PathLike[str] | None = None
    options: TaskOptions = field(default_factory=lambda: TaskOptions())
    filters: Mapping[str, Any] = field(default_factory=dict)
    model: str = "florence2"
    timeout: float | None = None
    concurrency: int = 16
    give_up_seconds: float = 600.0
    retry_failed: bool = False

    def lasting(self) -> dict[str, Any]:
        """The settings that must be the same in each run of one state, ready for JSON."""
        return {
            "source": list(self.sources),
            "directory": str(Path.cwd()) if any(map(_is_relative, self.sources)) else None,
            "task": list(self.tasks),
            "options": dict(sorted(self.options.items())),
            "filters": dict(sorted(self.filters.items())),
            "draw": self.draw,
            "model": self.model,
        }


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
        images: the number of images that are done, failed ones and those of earlier runs included.
        failed: the number of those that failed.
        done_now: the number of images that this run has done, failed ones included.
        output: where the results are.
        failures: where the list of the failed images is; None if none failed.
    """

    images: int
    failed: int
    done_now: int
    output: str
    failures: str | None


class BulkJob:
    """Images, tasks and an output, checked, with the state of earlier runs. Close it, or use it in a `with` block.

        with BulkJob(JobSettings(["photos"], ["detect", "caption"], "found.jsonl")) as job:
            async with florence2.AsyncClient("localhost:8001") as client:
                summary = await job.run(client)

    Raises:
        InvalidArgumentError: a setting is not valid. The message names it.
        MissingPackageError: a package that the job needs is not installed.
        StateInUseError: another run uses the state.
        StateMismatchError: the state is that of a run with other settings.
        OSError: a source does not exist, or an output cannot be written.
    """

    def __init__(self, settings: JobSettings) -> None:
        self._settings = settings
        self._tasks = bulk_tasks(settings.tasks)
        check_tasks(self._tasks, settings.options)
        if settings.concurrency < 1:
            raise InvalidArgumentError.of_field("concurrency", settings.concurrency, "at least 1")
        self._output = Output(Location.of(settings.output), settings.format, self._tasks)
        drawn = None if settings.draw is None else Location.of(settings.draw)
        written = [*self._output.files, *([] if drawn is None else [drawn])]
        self._source = _source(settings.sources, self._tasks, written)
        self._output.check()
        self._pictures: PictureFolder | None = None
        if drawn is not None:
            check_writable(drawn, is_folder=True)
            self._pictures = PictureFolder(drawn)
        self._state = State(_state_folder(settings.state, self._output.location))
        try:
            self._state.begin(settings.lasting())
        except BaseException:
            self._state.close()
            raise

    async def run(self, runner: Runner, show: ShowProgress | None = None) -> Summary:
        """Process the images that are not done, then write the output.

        Records are kept, however this ends; the output is written when all images are done.

        Args:
            runner: answers the requests, e.g. a `florence2.AsyncClient`.
            show: shows the progress.

        Raises:
            GaveUpError: no server has answered for too long.
            OptionsError: the server rejects an option of all requests.
            InvalidArgumentError: an id occurs twice, or the sources have no image.
            OSError: a source cannot be read, or an output cannot be written.
        """
        settings, outage = self._settings, Outage(self._settings.give_up_seconds)
        call = CallOptions() if settings.timeout is None else CallOptions(timeout=settings.timeout)
        exchange = Exchange(runner, self._tasks, settings.options, call, outage, settings.filters, self._pictures)
        run = BulkRun(
            self._source,
            exchange,
            self._state,
            concurrency=settings.concurrency,
            retry_failed=settings.retry_failed,
        )
        # Each image is read in a thread; asyncio's own executor has fewer.
        threads = ThreadPoolExecutor(settings.concurrency + _OTHER_THREADS, "florence2-bulk")
        asyncio.get_running_loop().set_default_executor(threads)
        with nullcontext() if show is None else show(run.progress, outage):
            await run.run()
        images, failed = self._state.counts()
        if not images:
            raise InvalidArgumentError.of_field("source", list(settings.sources), "at least one image in them")
        await asyncio.to_thread(self._output.write, self._state)
        failures = self._output.failures.url if failed else None
        return Summary(images, failed, run.progress.done, self._output.location.url, failures)

    def close(self) -> None:
        """Release the state for other runs."""
        self._state.close()

    def __enter__(self) -> "BulkJob":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_relative(source: str) -> bool:
    """Whether a source depends on the current directory."""
    return not (is_url(source) or source.startswith("~") or Path(source).is_absolute())


def _source(urls: Sequence[str], tasks: Sequence[BulkTask], written: Sequence[Location]) -> Source:
    names = frozenset(name for task in tasks for name in (task.name, task.word))
    source = open_sources(urls, names, outputs=written)
    for task in tasks:
        if task.needs_inputs and not source.has_inputs:
            requirement = f"{task.name}=INPUT, or a manifest or table with the field {task.field}"
            raise InvalidArgumentError.of_field("task", task.name, requirement)
    return source


def _state_folder(given: str | os.PathLike[str] | None, output: Location) -> Path:
    if given is not None:
        return Path(given)
    # A state is a database, which needs the file system of this machine.
    return Path(f"{output.path.rstrip('/')}.state" if output.is_local else f"{output.name}.state")
