"""Tasks on all images of a bucket, by Ray Data: over a fleet of servers, or with an engine in each worker.

    python examples/ray_bucket.py s3://bucket/photos s3://bucket/found --task detect --task caption
        --url triton-a:8001 --url triton-b:8001

Reads the images below the first path, and writes Parquet files into the second: a row for each image with its path,
a column of JSON text for each task, and a column `error`, which is null unless the image failed. Both paths may be
folders or URLs that fsspec knows, with credentials and an endpoint as fsspec finds them (for `s3://` in AWS's
variables). Run it on a Ray cluster with `ray job submit`; without a cluster, it starts Ray on this machine. All workers
need the package `florence2-triton[ray]`, and `s3fs` for `s3://`.

    python examples/ray_bucket.py s3://bucket/photos s3://bucket/found --task detect
        --checkpoint microsoft/Florence-2-large --workers 4 --gpus 1

loads the checkpoint into four workers with a GPU each instead (package `florence2-triton-server`).
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

import fsspec
import ray
from florence2.bulk.items import IMAGE_SUFFIXES
from florence2.bulk.ray import ERROR_COLUMN, Florence2Predictor, checked_tasks
from florence2.errors import InvalidArgumentError
from ray.data.expressions import col

_IMAGES = "bytes"  # the column of `read_binary_files`


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job. Returns 0 if all images succeeded, 1 if some failed."""
    options = _parser().parse_args(arguments)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not ray.is_initialized():
        ray.init(include_dashboard=False, **({"num_cpus": options.cpus} if options.cpus else {}))
    images, failed = run(options)
    print(f"{images:,} images, {failed:,} failed: {options.output}")  # noqa: T201 - what a script is for
    return 1 if failed else 0


def run(options: argparse.Namespace) -> tuple[int, int]:
    """Read, predict and write. Returns the number of images, and of those that failed."""
    source, folder = fsspec.url_to_fs(options.source)
    target, output = fsspec.url_to_fs(options.output)
    if target.exists(output) and target.ls(output):
        raise SystemExit(f"{options.output} is not empty")
    suffixes = [suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES]
    images = ray.data.read_binary_files(folder, filesystem=source, include_paths=True, file_extensions=suffixes)
    found = images.map_batches(
        Florence2Predictor,
        fn_constructor_kwargs=_predictor(options),
        batch_format="pyarrow",
        batch_size=options.batch_size,
        compute=ray.data.ActorPoolStrategy(size=options.workers),
        num_cpus=options.worker_cpus,
        num_gpus=options.gpus,
    )
    found.drop_columns([_IMAGES]).write_parquet(output, filesystem=target)
    written = ray.data.read_parquet(output, filesystem=target, columns=[ERROR_COLUMN])
    return written.count(), written.filter(expr=col(ERROR_COLUMN).is_not_null()).count()


def _predictor(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of each worker's predictor."""
    where: dict[str, Any] = {"checkpoint": options.checkpoint} if options.checkpoint else {"urls": options.url}
    return {"tasks": options.task, "column": _IMAGES, "in_flight": options.in_flight, **where}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Florence-2 tasks on all images of a bucket, by Ray Data.")
    parser.add_argument("source", help="a folder of images, or its URL, e.g. s3://bucket/photos")
    parser.add_argument("output", help="a folder for Parquet files, or its URL; it must be empty or missing")
    parser.add_argument("--task", action="append", required=True, type=_task, help="NAME[=INPUT]; repeat for several")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--url", action="append", help="host:port of a server's gRPC; repeat for a fleet")
    where.add_argument("--checkpoint", help="a folder or an id on the hub, to load into each worker")
    parser.add_argument("--workers", type=int, default=2, help="default %(default)s")
    parser.add_argument("--worker-cpus", type=float, default=0.5, help="CPUs of each worker (default %(default)s)")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of each worker (default %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="images in a batch (default %(default)s)")
    parser.add_argument(
        "--in-flight", type=int, default=16, help="images that a worker sends at once (default %(default)s)"
    )
    parser.add_argument("--cpus", type=int, help="CPUs of the Ray that this starts (default: the machine's)")
    return parser


def _task(text: str) -> str:
    try:
        checked_tasks([text])
    except InvalidArgumentError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


if __name__ == "__main__":
    sys.exit(main())
