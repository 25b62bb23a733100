"""Runs over a mock of a server: what goes wrong around them, and outputs among their sources."""

import asyncio
import shutil
import sqlite3
import time
from contextlib import closing
from itertools import count

import pytest
from florence2.bulk import StateMismatchError
from florence2.bulk.outage import Outage
from florence2.bulk.run import BulkRun
from florence2.bulk.state import State
from florence2.errors import InvalidArgumentError, ServerError, UnavailableError

from tests.bulk.conftest import RecordingTransport, lines, picture, respond
from tests.bulk.test_jobs import failing
from tests.bulk.test_sources import write_manifest

pytestmark = pytest.mark.usefixtures("no_waiting")


def test_a_relative_source_is_another_one_in_another_directory(run_job, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    run_job(["a"], ["caption"], tmp_path / "out.jsonl")
    monkeypatch.chdir(folder.parent)
    (folder.parent / "a").mkdir()
    with pytest.raises(StateMismatchError, match="directory was"):
        run_job(["a"], ["caption"], tmp_path / "out.jsonl")


def test_drawn_pictures_are_no_images_of_the_run(run_job, folder, tmp_path):
    for source, draw in ((folder, folder / "a0"), (f"{folder}/**/*.png", folder / "b" / "drawn")):
        output = tmp_path / f"{draw.name}.jsonl"
        first = run_job([source], ["detect"], output, draw=str(draw))
        assert run_job([source], ["detect"], output, draw=str(draw)).images == first.images
        shutil.rmtree(draw)
    with pytest.raises(InvalidArgumentError, match="another place than that of an output"):
        run_job([folder], ["detect"], tmp_path / "out.jsonl", draw=str(folder))


def test_an_output_does_not_replace_a_source(run_job, folder):
    manifest = write_manifest(folder / "list.jsonl", [{"image": "c.png"}])
    with pytest.raises(InvalidArgumentError, match="another place than that of an output"):
        run_job([manifest], ["caption"], manifest)
    assert lines(manifest) == [{"image": "c.png"}]


@pytest.mark.parametrize("error", [RecursionError("too deep"), OverflowError("too large")])
def test_no_error_of_an_image_stops_the_run(run_job, folder, tmp_path, error):
    transport = failing(error, picture(2))
    assert run_job([folder], ["detect"], tmp_path / "out.jsonl", with_transport=transport).failed == 1


def test_a_task_that_fails_for_good_leaves_the_results_of_the_others(run_job, folder, tmp_path):
    def handle(image, request):
        if request.WhichOneof("task") == "object_detection" and image == picture(2):
            raise ServerError("INTERNAL")
        return respond(image, request)

    run_job([folder], ["detect", "caption"], tmp_path / "out.jsonl", with_transport=RecordingTransport(handle))
    results = lines(tmp_path / "out.jsonl")[-1]["results"]
    assert (results["caption"]["text"], results["detect"]["error"]["type"]) == ("A dog.", "ServerError")


def test_a_full_disk_ends_the_run_at_once(run_job, folder, tmp_path, monkeypatch):
    def write(*_):
        raise sqlite3.OperationalError("database or disk is full")

    manifest = write_manifest(folder / "list.jsonl", [{"image": "c.png"}] * 3000)
    transport = RecordingTransport(lambda image, request: time.sleep(0.002) or respond(image, request))
    monkeypatch.setattr(State, "_insert", write)
    with pytest.raises(OSError, match=r"state\.sqlite: database or disk is full"):
        run_job([manifest], ["caption"], tmp_path / "out.jsonl", with_transport=transport)
    assert len(transport.requests) < 3000


def test_a_run_that_is_ended_does_not_wait_for_its_listing(tmp_path):
    class Endless:
        def items(self, is_wanted):
            return (each for each in count() if not is_wanted(str(each)))

        def count(self):
            return None

    async def end():
        with State(tmp_path) as state, pytest.raises(TimeoutError):
            await asyncio.wait_for(BulkRun(Endless(), None, state, concurrency=1).run(), 0.05)

    asyncio.run(end())  # waits for the thread that lists


@pytest.mark.parametrize("content", [b"no database" * 100, None])
def test_a_state_of_something_else_is_named(run_job, folder, tmp_path, content):
    file = tmp_path / "out.jsonl.state" / "state.sqlite"
    file.parent.mkdir()
    if content is None:
        with closing(sqlite3.connect(file)) as database:
            database.execute("CREATE TABLE records (x)")
    else:
        file.write_bytes(content)
    with pytest.raises(OSError, match=r"state\.sqlite: "):
        run_job([folder], ["caption"], tmp_path / "out.jsonl")


def test_a_slow_source_is_no_outage():
    outage = Outage(0.01)
    time.sleep(0.02)  # nothing is sent meanwhile
    asyncio.run(outage.wait(UnavailableError("full"), 1))
