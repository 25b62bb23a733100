"""Ray Data: a class for `map_batches`, over a fleet of servers or with an engine in each worker.

    import ray
    from florence2.bulk.ray import Florence2Predictor

    images = ray.data.read_binary_files("s3://bucket/photos", include_paths=True)
    found = images.map_batches(
        Florence2Predictor,
        fn_constructor_kwargs={"tasks": ["detect"], "urls": ["triton-a:8001", "triton-b:8001"], "column": "bytes"},
        batch_format="pyarrow",
        batch_size=64,
        concurrency=2,
    )
    found.drop_columns(["bytes"]).write_parquet("s3://bucket/found")

This module does not import Ray. Reading images from paths and URLs needs fsspec, and batches in Arrow need pyarrow; the
extra `[ray]` installs both.
"""

import asyncio
import json
import random
import threading
import weakref
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import numpy as np

from florence2._arguments import check_integer, check_priority, check_seconds, check_texts
from florence2.bulk.exchange import Exchange
from florence2.bulk.extras import load_package
from florence2.bulk.items import Item
from florence2.bulk.lines import error_line
from florence2.bulk.outage import Outage
from florence2.bulk.state import Record
from florence2.bulk.storage import Location
from florence2.bulk.tasks import BulkTask, bulk_tasks, check_tasks
from florence2.client.async_client import AsyncClient
from florence2.errors import Florence2Error, InvalidArgumentError
from florence2.images import encode_image
from florence2.options import CallOptions, TaskOptions
from florence2.transports import load_transport

ERROR_COLUMN: Final = "error"
"""The column that says why an image failed."""

_INPUTS: Final = ("text", "prompt", "region")
_CLOSE_SECONDS: Final = 10.0

_Value = TypeVar("_Value")


class Florence2Predictor:
    """Runs tasks on the images of a Ray dataset: pass this class to `Dataset.map_batches`.

    Each batch gets a column of JSON text for each task, named like the task: the result's `to_dict()`, with
    `"truncated": true` if the answer ended at its length limit, or `{"error": {"type", "message"}}` if only that task
    failed. The column `error` is null, or has `{"type", "message"}` if the image failed, with `"task"` if only one task
    did. An image's error never fails the job.

    The images are in a column of image files (`bytes`), of paths or URLs, of structs of `bytes` and `path` as in
    Hugging Face datasets, or of `uint8` arrays of shape (H, W, 3). Columns named `text`, `prompt`, `region`, or like a
    task without an input in `tasks`, have the inputs for each image.

    With `batch_format="pyarrow"` the new columns are text in every block. With `"numpy"`, a column of a block whose
    values are all null has no type, which some file formats reject.

    While servers refuse requests or do not answer, the worker waits. If none answers for `give_up_seconds`, the batch
    raises `GaveUpError`; if a server rejects an option of all requests, `OptionsError`. Ray then ends the job.

    Args:
        tasks: names of the tasks about each image, which are sent in one request, as for `florence2 bulk --task`; with
            `=` and an input that is the same for all images, e.g. `["detect", "ground=A red circle."]`.
        urls: host and port of one server or several. Requests are distributed round robin; each worker begins with a
            random one.
        checkpoint: instead of `urls`, a checkpoint to load into each worker: a folder on that worker's machine, or an
            id on the hub. Needs the package `florence2-triton-server`. `num_gpus=1` of `map_batches` reserves a GPU.
        column: the name of the column of images.
        options: the adapter and the generation options of each request.
        filters: `min_score`, `max_items` and `labels`: which items of the results are kept.
        in_flight: the number of images that each worker sends at a time.
        timeout: seconds for each attempt to have an image answered.
        priority: of the requests in a server's queue, 1 (first) to 3 (last); None for the server's default.
        give_up_seconds: the maximum time without any answer.
        client: further arguments of `florence2.AsyncClient`, e.g. `{"tls": florence2.TLS()}`; Ray pickles them.
        engine: further arguments of the engine, with `checkpoint`, e.g. `{"device": "cuda", "slots": 32}`.

    Raises:
        InvalidArgumentError: an argument is not valid. The message names it.
        TypeError: an argument has the wrong type.
        TransportNotFoundError: `checkpoint` is given, and the server's package is not installed.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        urls: str | Sequence[str] | None = None,
        checkpoint: str | None = None,
        column: str = "image",
        options: TaskOptions | None = None,
        filters: Mapping[str, Any] | None = None,
        in_flight: int = 16,
        timeout: float = 60.0,
        priority: int | None = None,
        give_up_seconds: float = 600.0,
        client: Mapping[str, Any] | None = None,
        engine: Mapping[str, Any] | None = None,
    ) -> None:
        self._tasks = checked_tasks(tasks, options)
        if check_integer("in_flight", in_flight) < 1:
            raise InvalidArgumentError.of_field("in_flight", in_flight, "at least 1")
        self._column = column
        self._options = options or TaskOptions()
        self._filters = filters or {}
        self._call = CallOptions(priority=check_priority(priority))
        self._give_up_seconds = check_seconds("give_up_seconds", give_up_seconds)
        self._has_answered = False
        self._limit = asyncio.Semaphore(in_flight)
        self._client = AsyncClient(timeout=timeout, **_destination(urls, checkpoint, engine), **(client or {}))
        self._thread = _LoopThread(in_flight)
        # Ray drops the object when its worker ends.
        self._finalizer = weakref.finalize(self, _close, self._thread, self._client)

    def __call__(self, batch: Any) -> Any:
        """The batch with the columns of results and errors.

        Args:
            batch: a `pyarrow.Table`, a pandas `DataFrame`, or a dict of columns, as Ray makes them.

        Returns:
            A batch of the same type, with the rows in their order.

        Raises:
            InvalidArgumentError: the batch has no column of images, or a column with the name of a result.
            GaveUpError: no server has answered for too long.
            OptionsError: the server rejects an option of all requests.
        """
        self._check_columns(batch)
        outage = Outage(self._give_up_seconds)  # a new one, because a worker may be idle between batches for longer
        outage.has_answered = self._has_answered
        exchange = Exchange(self._client, self._tasks, self._options, self._call, outage, self._filters)
        records = self._thread.run(self._records(exchange, list(self._rows(batch))))
        self._has_answered = outage.has_answered
        return _with_columns(batch, self._columns(records))

    def close(self) -> None:
        """Close the client, and stop the engine. Called when the object is deleted; may be called again."""
        self._finalizer()

    async def _records(self, exchange: Exchange, rows: Sequence[Mapping[str, Any]]) -> list[Record]:
        async def record(row: Mapping[str, Any]) -> Record:
            async with self._limit:
                try:
                    item = await asyncio.to_thread(self._item, row)
                except (Florence2Error, OSError, ValueError, TypeError) as error:
                    return Record("", 0, None, error_line(Item("", "", b""), error))
                return await exchange.record(item, 0)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(record(row)) for row in rows]
        return [task.result() for task in tasks]

    def _rows(self, batch: Any) -> Iterator[dict[str, Any]]:
        names = {self._column, *_INPUTS, *(name for task in self._tasks for name in (task.name, task.word))}
        columns = {name: _values(batch[name]) for name in _names(batch) if name in names}
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, values, strict=True))

    def _item(self, row: Mapping[str, Any]) -> Item:
        image = row[self._column]
        inputs = {name: value for name, value in row.items() if name != self._column and not _is_null(value)}
        if isinstance(image, Mapping):
            image = image.get("bytes") or image.get("path")
        if isinstance(image, str) and image:
            return Item("", image, Location.of(image), inputs)
        if _is_null(image) or (isinstance(image, str | bytes) and not image):
            raise InvalidArgumentError.of_field(self._column, image, "an image file, or its path or URL")
        return Item("", "", encode_image(image), inputs)

    def _check_columns(self, batch: Any) -> None:
        names = _names(batch)
        if self._column not in names:
            requirement = f"a column named {self._column!r}; name another one with column="
            raise InvalidArgumentError.of_field("column", names, requirement)
        for name in (ERROR_COLUMN, *(task.name for task in self._tasks)):
            if name in names:
                raise InvalidArgumentError.of_field("column", name, "no column with the name of a result; rename it")

    def _columns(self, records: Sequence[Record]) -> dict[str, list[str | None]]:
        columns: dict[str, list[str | None]] = {task.name: [] for task in self._tasks}
        columns[ERROR_COLUMN] = []
        for record in records:
            line = {} if record.line is None else json.loads(record.line)
            for task in self._tasks:
                columns[task.name].append(_result_text(line, task.name))
            columns[ERROR_COLUMN].append(_error_text(record))
        return columns


def checked_tasks(tasks: Sequence[str], options: TaskOptions | None = None) -> list[BulkTask]:
    """The tasks and the options, checked where the job is created, before its workers start.

    Args:
        tasks: as for `Florence2Predictor`.
        options: the adapter and the generation options.

    Raises:
        InvalidArgumentError: a task or an option is not valid. The message names it.
    """
    found = bulk_tasks(check_texts("tasks", [tasks] if isinstance(tasks, str) else tasks))
    check_tasks(found, options or TaskOptions())
    return found


class _LoopThread:
    """An event loop in a thread of its own: Ray calls a worker from any thread, a client belongs to one loop."""

    def __init__(self, readers: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(readers, "florence2-ray"))
        self._thread = threading.Thread(target=self._loop.run_forever, name="florence2-ray", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, _Value], timeout: float | None = None) -> _Value:
        """Run a coroutine in the loop, and wait for what it returns."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(timeout)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None  # the first failed task cancels the others
        finally:
            future.cancel()  # of a batch that Ray interrupts

    def close(self) -> None:
        """Stop the loop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()


def _close(thread: _LoopThread, client: AsyncClient) -> None:
    try:
        thread.run(client.close(), _CLOSE_SECONDS)
    finally:
        thread.close()


def _destination(
    urls: str | Sequence[str] | None, checkpoint: str | None, engine: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Arguments of the client."""
    if (urls is None) == (checkpoint is None):
        raise InvalidArgumentError.of_field("urls", urls, "either urls or a checkpoint")
    if checkpoint is not None:
        return {"transport": load_transport("in_process")(checkpoint, **(engine or {}))}
    if engine:
        raise InvalidArgumentError.of_field("engine", dict(engine), "None unless there is a checkpoint")
    assert urls is not None
    addresses = check_texts("urls", [urls] if isinstance(urls, str) else urls)
    first = random.randrange(len(addresses) or 1)  # noqa: S311 - spreads workers, hides nothing
    return {"url": [*addresses[first:], *addresses[:first]]}


def _names(batch: Any) -> list[str]:
    return list(getattr(batch, "column_names", batch))


def _values(column: Any) -> list[Any]:
    """A column as a list. The elements of an array of images stay arrays."""
    return list(column.to_pylist() if hasattr(column, "to_pylist") else column)


def _with_columns(batch: Any, columns: Mapping[str, Sequence[str | None]]) -> Any:
    """A batch with further columns, in its own type."""
    if hasattr(batch, "append_column"):
        pyarrow = load_package("pyarrow")
        for name, texts in columns.items():
            batch = batch.append_column(name, pyarrow.array(texts, pyarrow.string()))
        return batch
    if hasattr(batch, "assign"):
        return batch.assign(**columns)
    return {**batch, **{name: np.array(texts, dtype=object) for name, texts in columns.items()}}


def _is_null(value: object) -> bool:
    return value is None or (isinstance(value, float) and value != value)  # NaN, as pandas has it


def _result_text(line: Mapping[str, Any], task: str) -> str | None:
    if task not in line.get("results", {}):
        return None
    result = line["results"][task]
    if task in line.get("truncated", ()):
        result = {**result, "truncated": True}
    return json.dumps(result, ensure_ascii=False)


def _error_text(record: Record) -> str | None:
    if record.error is None:
        return None
    line = json.loads(record.error)
    return json.dumps(line["error"] | ({"task": line["task"]} if "task" in line else {}), ensure_ascii=False)
