"""Buckets as sources and outputs: the one-file job of Ray, and `florence2 bulk` with a kill in between."""

import io
import json
import os
import subprocess
import sys
import time

import pyarrow.parquet
import pytest

from tests.bulk.distributed.conftest import BUCKET, CPUS, OBJECT_STORE_BYTES, without_scores
from tests.bulk.kills import Server, assert_equal_outputs
from tests.conftest import DEMO_CHECKPOINT, ROOT
from tests.server.observation import seconds_until

pytestmark = [pytest.mark.bulk, pytest.mark.usefixtures("bucket")]

SCENES = f"s3://{BUCKET}/scenes"
JOB_SECONDS = 600
TASKS = ("--task", "detect", "--task", "caption")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("fleet") / "log.txt")
    yield server
    server.close()


def run_job(*arguments, **environment):
    command = [sys.executable, str(ROOT / "examples" / "ray_bucket.py"), *arguments]
    variables = os.environ | environment
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=JOB_SECONDS)


def start_command(source, output, url, *options):
    command = [sys.executable, "-m", "florence2.bulk", str(source), *TASKS, "-o", str(output), "--url", url, *options]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def objects(storage, prefix):
    """The objects of the bucket below a prefix: keys and bytes."""
    listed = storage.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    return {each["Key"]: storage.get_object(Bucket=BUCKET, Key=each["Key"])["Body"].read() for each in listed}


def json_lines(data):
    return [json.loads(line) for line in data.decode().splitlines()]


@pytest.fixture(scope="module")
def local_run(fleet, bucket, tmp_path_factory):
    """The output of `florence2 bulk` about the folder."""
    output = tmp_path_factory.mktemp("local") / "found.jsonl"
    assert start_command(bucket, output, fleet.url).wait(JOB_SECONDS) == 1  # one image is broken
    return output


def test_the_job_reads_a_bucket_and_writes_parquet_over_a_fleet(cluster, fleet, storage, local_run, figure):
    started = time.monotonic()
    arguments = [SCENES, f"s3://{BUCKET}/job", *TASKS, "--url", fleet.url, "--worker-cpus", "0.5"]
    done = run_job(*arguments, RAY_ADDRESS=cluster)
    seconds = time.monotonic() - started
    assert done.returncode == 1, done.stderr
    assert f"201 images, 1 failed: s3://{BUCKET}/job" in done.stdout
    files = objects(storage, "job/")
    tables = [pyarrow.parquet.read_table(io.BytesIO(data)) for data in files.values()]
    rows = [row for table in tables for row in table.to_pylist()]
    assert_same_results(rows, local_run, f"{BUCKET}/scenes/")
    again = run_job(*arguments, RAY_ADDRESS=cluster)
    assert again.returncode != 0
    assert "is not empty" in again.stderr
    assert objects(storage, "job/") == files
    figure("Ray job, bucket to Parquet over a server, two workers: seconds for 201 images", seconds)


def assert_same_results(rows, jsonl, prefix):
    expected = {line["id"]: line["results"] for line in json_lines(jsonl.read_bytes())}
    found = {row["path"].removeprefix(prefix): row for row in rows}
    assert len(found) == len(rows) == len(expected) + 1
    assert "InvalidArgumentError" in found.pop("0/broken.png")["error"]
    for id_, results in expected.items():
        row = found[id_]
        assert row["error"] is None
        assert {name: without_scores(row[name]) for name in results} == without_scores(results)


def test_the_job_alone_starts_ray_and_loads_the_checkpoint_into_its_worker(bucket, local_run, tmp_path):
    pictures, output = tmp_path / "photos", tmp_path / "found"
    pictures.mkdir()
    for path in (bucket / "5").glob("*.png"):
        (pictures / path.name).write_bytes(path.read_bytes())
    small = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(OBJECT_STORE_BYTES)}
    where = ["--checkpoint", str(DEMO_CHECKPOINT), "--workers", "1", "--cpus", str(CPUS)]
    done = run_job(str(pictures), str(output), *TASKS, *where, **small)
    assert done.returncode == 0, done.stderr
    expected = {line["id"]: line["results"]["detect"] for line in json_lines(local_run.read_bytes())}
    rows = pyarrow.parquet.read_table(output).to_pylist()
    assert len(rows) == 20
    for row in rows:
        assert without_scores(row["detect"]) == without_scores(expected["5/" + row["path"].rpartition("/")[2]])


def test_the_job_refuses_a_wrong_task_before_ray_starts():
    done = run_job("photos", "found", "--task", "detekt", "--url", "a:1")
    assert done.returncode == 2
    assert "got 'detekt'" in done.stderr


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_the_command_from_bucket_to_bucket_writes_what_it_writes_locally(
    fleet, storage, local_run, kind, tmp_path, figure
):
    state = str(tmp_path / "state")
    started = time.monotonic()
    output = f"s3://{BUCKET}/{kind}/found.{kind}"
    assert start_command(SCENES, output, fleet.url, "--state", state).wait(JOB_SECONDS) == 1
    figure(f"florence2 bulk, bucket to {kind} in the bucket: seconds for 201 images", time.monotonic() - started)
    written = objects(storage, f"{kind}/")
    assert sorted(written) == [f"{kind}/found.failed.jsonl", f"{kind}/found.{kind}"]
    (failed,) = json_lines(written[f"{kind}/found.failed.jsonl"])
    assert failed["id"] == "0/broken.png"
    if kind == "jsonl":
        assert_same_lines(written[f"{kind}/found.jsonl"], local_run, tmp_path)
    else:
        rows = pyarrow.parquet.read_table(io.BytesIO(written[f"{kind}/found.parquet"])).to_pylist()
        assert len({row["id"] for row in rows}) == len(json_lines(local_run.read_bytes()))


def assert_same_lines(data, local_run, tmp_path):
    def copy(content, name):
        lines = sorted(json_lines(content), key=lambda line: line["id"])
        path = tmp_path / name
        path.write_text("".join(json.dumps(line | {"image": ""}) + "\n" for line in lines))
        return path

    assert_equal_outputs(copy(data, "bucket.jsonl"), copy(local_run.read_bytes(), "local.jsonl"))


def test_the_command_resumes_after_kills_with_source_and_output_in_the_bucket(
    fleet, storage, local_run, tmp_path, figure
):
    output, state = f"s3://{BUCKET}/resumed/found.jsonl", str(tmp_path / "state")
    kills = 0
    for _ in range(3):
        goal = fleet.answered() + 30
        process = start_command(SCENES, output, fleet.url, "--state", state)
        seconds_until(lambda goal=goal, process=process: fleet.answered() >= goal or process.poll() is not None)
        assert process.poll() is None
        process.kill()
        process.wait()
        kills += 1
        assert objects(storage, "resumed/") == {}
    assert start_command(SCENES, output, fleet.url, "--state", state).wait(JOB_SECONDS) == 1
    assert_same_lines(objects(storage, "resumed/")["resumed/found.jsonl"], local_run, tmp_path)
    figure("florence2 bulk from bucket to bucket, output equal: kills of the command", kills)
