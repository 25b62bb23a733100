"""Bulk runs: tasks on all images of folders, manifests, shards, tables and buckets, resumable after a kill.

    from florence2.bulk import BulkJob, JobSettings

    with BulkJob(JobSettings(["photos"], ["detect", "caption"], "found.jsonl")) as job:
        async with florence2.AsyncClient("localhost:8001") as client:
            summary = await job.run(client)

`florence2 bulk` is the same as a command. Everything else here is for new sources and outputs.
"""

from florence2.bulk.exchange import OptionsError, Runner
from florence2.bulk.extras import MissingPackageError
from florence2.bulk.items import Item, Source
from florence2.bulk.job import BulkJob, JobSettings, Summary
from florence2.bulk.outage import GaveUpError
from florence2.bulk.run import Progress
from florence2.bulk.sources import open_sources
from florence2.bulk.state import StateInUseError, StateMismatchError

__all__ = [
    "BulkJob",
    "GaveUpError",
    "Item",
    "JobSettings",
    "MissingPackageError",
    "OptionsError",
    "Progress",
    "Runner",
    "Source",
    "StateInUseError",
    "StateMismatchError",
    "Summary",
    "open_sources",
]
