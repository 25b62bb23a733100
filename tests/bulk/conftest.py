"""Files for bulk runs, and runs over a mock of a server."""

import asyncio
import io
import json

import PIL.Image
import pytest
from florence2 import AsyncClient
from florence2.bulk import BulkJob, JobSettings
from florence2.testing import MockTransport, task_response

BOX = "dog<loc_100><loc_200><loc_300><loc_400>"
TEXTS = {
    "object_detection": BOX,
    "caption": "A dog.",
    "phrase_grounding": BOX,
    "ocr_with_region": "OPEN" + "".join(f"<loc_{place}>" for place in (10, 10, 90, 10, 90, 50, 10, 50)),
    "referring_expression_segmentation": "<loc_10><loc_10><loc_90><loc_10><loc_90><loc_50>",
}


def picture(number: int = 0) -> bytes:
    """A small image file, different for each number."""
    file = io.BytesIO()
    PIL.Image.new("RGB", (64, 48), (number % 256, number // 256 % 256, 99)).save(file, "PNG")
    return file.getvalue()


def respond(image, request):  # noqa: ARG001
    return task_response(TEXTS[request.WhichOneof("task")], (64, 48))


class RecordingTransport(MockTransport):
    """A mock that keeps the requests with their images."""

    def __init__(self, handler=respond):
        super().__init__(self._handle)
        self.requests = []
        self._respond = handler

    def _handle(self, image, request):
        self.requests.append((image, request))
        return self._respond(image, request)


@pytest.fixture
def transport():
    return RecordingTransport()


@pytest.fixture
def run_job(transport):
    """`run_job(sources, tasks, output, ...)`: run a job over the mock. Returns its summary."""

    def run(sources, tasks, output, with_transport=transport, **settings):
        async def run_async():
            with BulkJob(JobSettings([str(each) for each in sources], tasks, str(output), **settings)) as job:
                async with AsyncClient(transport=with_transport) as client:
                    return await job.run(client)

        return asyncio.run(run_async())

    return run


@pytest.fixture
def folder(tmp_path):
    """Five pictures in folders, and files that are not pictures."""
    root = tmp_path / "photos"
    for number, name in enumerate(["b/2.png", "a/1.JPG", "c.png", "b/10.png", "a/deep/x.webp"]):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    (root / "notes.txt").write_text("not an image")
    (root / ".hidden.png").write_bytes(b"")
    return root


def lines(path):
    """The JSON lines of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def ids(path):
    return [line["id"] for line in lines(path)]


@pytest.fixture(scope="session")
def bulk_server(tmp_path_factory):
    """A tritonserver that tests may kill."""
    from tests.bulk.kills import Server

    server = Server(tmp_path_factory.mktemp("bulk") / "log.txt")
    yield server
    server.close()


@pytest.fixture
def no_waiting(monkeypatch):
    """Backoff without its seconds."""
    monkeypatch.setattr("florence2.bulk.outage._FIRST_SECONDS", 0.0001)
    monkeypatch.setattr("florence2.bulk.outage._MOST_SECONDS", 0.0001)
