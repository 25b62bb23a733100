"""`python -m tests.bulk.memory FOLDER LINES`: run a job over a manifest of LINES lines, and print its peak memory.

A process of its own, because the peak is that of a process.
"""

import asyncio
import json
import sys
from pathlib import Path

from florence2 import AsyncClient
from florence2.bulk import BulkJob, JobSettings

from tests.bulk.conftest import RecordingTransport, picture, respond


class ForgetfulTransport(RecordingTransport):
    """A mock that keeps no requests."""

    def _handle(self, image, request):
        return respond(image, request)


def main(folder: Path, count: int) -> None:
    (folder / "x.png").write_bytes(picture())
    with (folder / "list.jsonl").open("w") as manifest:
        manifest.writelines(f'{{"id": "image-{number:07}", "image": "x.png"}}\n' for number in range(count))
    summary = asyncio.run(run(folder))
    # Not getrusage's ru_maxrss, which begins with the peak of the process that started this one.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    kilobytes = int(status["VmHWM"].split()[0])
    sys.stdout.write(json.dumps({"images": summary.images, "failed": summary.failed, "megabytes": kilobytes / 1024}))


async def run(folder: Path):
    settings = JobSettings([str(folder / "list.jsonl")], ["detect"], str(folder / "out.jsonl"), concurrency=64)
    with BulkJob(settings) as job:
        async with AsyncClient(transport=ForgetfulTransport()) as client:
            return await job.run(client)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
