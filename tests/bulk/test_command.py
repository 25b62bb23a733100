"""The command `florence2 bulk`: exit statuses, one-line errors, progress."""

import asyncio
import io
import signal
import subprocess
import sys
import time

import pytest
from florence2.bulk.outage import Outage
from florence2.bulk.progress import described, shown
from florence2.bulk.run import Progress
from florence2.bulk.state import State
from florence2.cli import main
from florence2.errors import UnavailableError

from tests.bulk import kills
from tests.bulk.conftest import ids, lines, picture
from tests.conftest import DEMO_CHECKPOINT
from tests.server.observation import seconds_until

SECONDS = 120
DEAD = "127.0.0.1:9"


def bulk(*arguments):
    """Run the command. Returns its exit status and the lines of its standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "florence2.bulk", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert not done.stdout
    return done.returncode, done.stderr.splitlines()


@pytest.fixture
def bulk_here(capsys, monkeypatch, tmp_path):
    """`bulk_here(*arguments)`: run the command in this process, which is faster, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["bulk", *map(str, arguments)])
        return ended.value.code, capsys.readouterr().err.splitlines()

    return run


@pytest.fixture
def scenes(tmp_path):
    return kills.draw_scenes(tmp_path / "scenes", 4)


def test_a_folder_is_answered_by_a_server_and_in_process_alike(bulk_server, scenes, tmp_path):
    tasks = ("--task", "detect", "--task", "caption", "--beams", "2")
    status, (summary,) = bulk(scenes, *tasks, "-o", tmp_path / "server.jsonl", "--url", bulk_server.url)
    assert (status, summary) == (0, f"4 images done (4 now), 0 failed: {tmp_path / 'server.jsonl'}")
    checkpoint = ("--checkpoint", DEMO_CHECKPOINT, "--device", "cpu")
    assert bulk(scenes, *tasks, "-o", tmp_path / "own.jsonl", *checkpoint)[0] == 0
    kills.assert_equal_outputs(tmp_path / "own.jsonl", tmp_path / "server.jsonl")


def test_a_picture_that_is_none_is_listed_and_the_status_is_1(bulk_server, scenes, tmp_path):
    (scenes / "broken.png").write_bytes(b"not an image")
    status, (_, hint) = bulk(scenes, "--task", "caption", "-o", tmp_path / "out.jsonl", "--url", bulk_server.url)
    assert status == 1
    assert hint.startswith(f"florence2: failed images are listed in {tmp_path / 'out.failed.jsonl'}; --retry-failed ")
    assert len(ids(tmp_path / "out.jsonl")) == 4
    (failure,) = lines(tmp_path / "out.failed.jsonl")
    assert (failure["id"], failure["error"]["type"]) == ("broken.png", "InvalidArgumentError")


def test_an_unknown_adapter_ends_the_run_with_status_2(bulk_server, scenes, tmp_path):
    options = ("--task", "caption", "--adapter", "nothing", "--url", bulk_server.url)
    status, (error,) = bulk(scenes, *options, "-o", tmp_path / "out.jsonl")
    assert (status, "adapter" in error) == (2, True)


def test_an_unknown_model_ends_the_run_with_status_3(bulk_server, scenes, tmp_path):
    options = ("--task", "caption", "--model", "florence3", "--url", bulk_server.url)
    status, (error,) = bulk(scenes, *options, "-o", tmp_path / "out.jsonl")
    assert (status, "unknown model: 'florence3'" in error) == (3, True)


def test_without_a_server_the_run_gives_up_with_status_3(bulk_here, scenes):
    options = ("--task", "caption", "--url", DEAD, "--give-up-after", "0.5", "--timeout", "1")
    status, (error,) = bulk_here(scenes, *options, "-o", "out.jsonl")
    assert status == 3
    assert error.startswith("florence2: no server has answered for ")
    assert error.endswith("; the same command resumes the run")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "--task", "caption"], "nowhere does not exist"),
        (["{scenes}", "--task", "captions"], "task: got 'captions', expected one of caption"),
        (["{scenes}", "--task", "ground"], "expected ground=INPUT"),
        (["{scenes}", "--task", "caption", "--format", "xml"], "--format"),
        (["{scenes}"], "--task"),
        (["{scenes}", "--task", "caption", "--concurrency", "0"], "concurrency"),
        (["s3x://bucket", "--task", "caption"], "expected a path or a URL that fsspec knows"),
    ],
)
def test_a_wrong_command_is_one_line_and_status_2(bulk_here, scenes, arguments, words):
    given = [argument.format(scenes=scenes) for argument in arguments]
    status, (error,) = bulk_here(*given, "-o", "out.jsonl", "--url", DEAD)
    assert status == 2
    assert error.startswith("florence2: ")
    assert words in error


@pytest.mark.parametrize("package", ["fsspec.core", "pyarrow.parquet"])
def test_a_missing_package_is_one_line_that_says_what_to_install(bulk_here, scenes, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)  # importing it fails
    status, (error,) = bulk_here(scenes, "--task", "caption", "-o", "out.parquet", "--url", DEAD)
    assert status == 2
    name = package.partition(".")[0]
    assert f'the package {name}; run `pip install "florence2-triton[bulk]"`' in error


def test_progress_has_numbers_rate_and_time_left():
    progress = Progress(total=5000, earlier=1000, done=200, failed=3, started=time.monotonic() - 100)
    line = described(progress, Outage(1))
    assert line == "1,200 of 5,000 done, 3 failed, 2.0 images/s, 0:31:40 left"


def test_progress_is_plain_lines_where_there_is_no_terminal(monkeypatch):
    monkeypatch.setattr("florence2.bulk.progress._LINE_SECONDS", 0.001)
    stream, outage = io.StringIO(), Outage(1)
    outage.reason = UnavailableError("down")

    async def show():
        with shown(Progress(done=1), outage, stream):
            await asyncio.sleep(0.05)

    asyncio.run(show())
    assert stream.getvalue().splitlines()[0].startswith("1 done, 0 failed, ")
    assert stream.getvalue().splitlines()[0].endswith("; waiting for a server: down")


def test_a_picture_at_a_time_is_enough(bulk_server, tmp_path):
    (tmp_path / "x.png").write_bytes(picture())
    options = ("--task", "caption", "--concurrency", "1", "--url", bulk_server.url)
    assert bulk(tmp_path / "x.png", *options, "-o", tmp_path / "out.jsonl")[0] == 0
    assert ids(tmp_path / "out.jsonl") == ["x.png"]


def test_ctrl_c_keeps_what_is_done_and_the_same_command_resumes(bulk_server, tmp_path):
    source, output = kills.draw_scenes(tmp_path / "scenes", 60), tmp_path / "out.jsonl"
    answered = bulk_server.answered()
    process = kills.start_command(source, output, bulk_server.url, "--concurrency", "2")
    seconds_until(lambda: bulk_server.answered() >= answered + 5)
    process.send_signal(signal.SIGINT)
    assert process.wait(SECONDS) == 130
    assert not output.exists()
    with State(tmp_path / "out.jsonl.state") as state:
        kept, _ = state.counts()
    assert 0 < kept < 60
    assert kills.start_command(source, output, bulk_server.url).wait(SECONDS) == 0
    assert len(ids(output)) == 60
