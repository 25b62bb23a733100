"""The command `florence2 bulk`."""

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from florence2.bulk import BulkJob, GaveUpError, JobSettings, Summary
from florence2.bulk.progress import shown
from florence2.bulk.tasks import task_words
from florence2.cli.connecting import adapter_name, client_keywords
from florence2.cli.exits import FAILED, MISUSED, SUCCEEDED, UNREACHABLE, CommandError, complain
from florence2.cli.option_groups import AdapterOption, ItemOptions, ServerOptions, generation_options
from florence2.cli.signatures import with_options
from florence2.client import AsyncClient
from florence2.errors import Florence2Error
from florence2.options import TaskOptions

_OUTPUT: Final = "Output"


@dataclass(frozen=True)
class BulkOptions:
    """What a run does."""

    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Folders, globs, image files, manifests (.jsonl, .csv), shards (.tar), tables (.parquet), or URLs of "
            "these (s3://...).",
        ),
    ]
    task: Annotated[
        list[str],
        typer.Option(
            "--task",
            metavar="NAME[=INPUT]",
            help=f"A task on each image; repeat it for several in one request. One of {', '.join(task_words())}.",
            autocompletion=task_words,
        ),
    ]
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|FOLDER",
            help="The output: .jsonl, .parquet, .json (COCO), or a folder with a JSON file for each image.",
            rich_help_panel=_OUTPUT,
        ),
    ]
    format: Annotated[
        Literal["jsonl", "parquet", "coco", "folder"] | None,
        typer.Option("--format", help="Default: by the output's name.", rich_help_panel=_OUTPUT),
    ] = None
    draw: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Draw the results into this folder.", rich_help_panel=_OUTPUT)
    ] = None
    state: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The state, for resuming. Default: OUTPUT.state.", rich_help_panel=_OUTPUT),
    ] = None
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Process images again that failed in earlier runs.")
    ] = False
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Images sent at a time.")] = 16
    give_up_after: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="End if no server has answered for this long.")
    ] = 600.0


def _bulk(
    options: BulkOptions,
    server: ServerOptions,
    adapter: AdapterOption,
    items: ItemOptions,
    generation: TaskOptions,
) -> int:
    name = adapter_name(server, adapter.adapter)
    settings = JobSettings(
        options.sources,
        options.task,
        options.output,
        options.format,
        options.draw,
        options.state,
        options=generation if name is None else {**generation, "adapter": name},
        filters=items.given(),
        # An adapter of a checkpoint has its folder here.
        model=server.model
        if server.checkpoint is None
        else " ".join([server.checkpoint, adapter.adapter or ""]).strip(),
        timeout=server.timeout,
        concurrency=options.concurrency,
        give_up_seconds=options.give_up_after,
        retry_failed=options.retry_failed,
    )
    try:
        with BulkJob(settings) as job:
            summary = asyncio.run(_run(job, server, adapter.adapter))
    except GaveUpError as error:
        raise CommandError(f"{error}; the same command resumes the run", UNREACHABLE) from error
    except (Florence2Error, OSError) as error:
        raise CommandError(str(error), MISUSED) from error
    return _report(summary)


bulk: Any = with_options(_bulk, BulkOptions, ServerOptions, AdapterOption, ItemOptions, generation_options)
"""The command's function, for typer."""
bulk.__doc__ = (
    "Run tasks on folders, manifests, shards, tables and buckets. The same command resumes an interrupted run.\n\n"
    "Exit status: 0 all images done, 1 some failed, 2 wrong usage, 3 gave up waiting for a server."
)


def main() -> None:
    """Run the command by itself and exit with its status."""
    from florence2.cli import main as florence2  # which imports this module

    florence2(["bulk", *sys.argv[1:]])


async def _run(job: BulkJob, server: ServerOptions, adapter: str | None) -> Summary:
    async with AsyncClient(**client_keywords(server, adapter)) as client:
        return await job.run(client, lambda progress, outage: shown(progress, outage, sys.stderr))


def _report(summary: Summary) -> int:
    print(  # noqa: T201 - what a command is for
        f"{summary.images:,} images done ({summary.done_now:,} now), {summary.failed:,} failed: {summary.output}",
        file=sys.stderr,
    )
    if summary.failures is None:
        return SUCCEEDED
    complain(f"failed images are listed in {summary.failures}; --retry-failed processes them again")
    return FAILED
