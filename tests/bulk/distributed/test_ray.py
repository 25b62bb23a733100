"""The class for `map_batches` in a local Ray: over a server, over two of which one is killed, and in process."""

import json
import threading
import time
from pathlib import Path

import florence2
import pyarrow.parquet
import pytest
from florence2.bulk.ray import Florence2Predictor

from tests.bulk.distributed.conftest import BUCKET, without_scores
from tests.conftest import DEMO_CHECKPOINT, ROOT
from tests.docs.programs import run_page
from tests.server.observation import metric, seconds_until

pytestmark = [pytest.mark.bulk, pytest.mark.usefixtures("cluster")]

BROKEN = b"not an image"
SHORT = {"max_new_tokens": 48}


@pytest.fixture(scope="module")
def expected(server, pictures):
    """What a client answers to `detect` about each picture."""
    with florence2.Client(server.grpc_url) as client:
        return [without_scores(client.detect(picture, **SHORT).to_dict()) for picture in pictures]


def predict(rows, batch_format="pyarrow", batch_size=16, workers=1, cpus=0.5, **arguments):
    """The rows to which a Ray dataset is mapped, in their order, and the seconds that it took."""
    import ray

    dataset = ray.data.from_items([{"number": number, **row} for number, row in enumerate(rows)])
    found = dataset.map_batches(
        Florence2Predictor,
        fn_constructor_kwargs={"options": SHORT, "tasks": ["detect"], **arguments},
        batch_format=batch_format,
        batch_size=batch_size,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=cpus,
    )
    started = time.monotonic()
    taken = sorted(found.take_all(), key=lambda row: row["number"])
    return taken, time.monotonic() - started


@pytest.mark.parametrize("batch_format", ["pyarrow", "numpy", "pandas"])
def test_a_server_answers_as_a_client_is_answered_and_broken_images_have_errors(
    server, pictures, expected, batch_format, figure
):
    rows = [{"image": picture} for picture in pictures]
    rows[7] = rows[31] = {"image": BROKEN}
    found, seconds = predict(rows, batch_format, urls=server.grpc_url)
    assert [row["number"] for row in found] == list(range(len(rows)))
    for row, answer in zip(found, expected, strict=True):
        if row["number"] in (7, 31):
            assert row["detect"] is None
            assert "InvalidArgumentError" in row["error"]
        else:
            assert without_scores(row["detect"]) == answer
            assert row["error"] is None
    figure(f"Ray, {batch_format} batches: seconds for {len(rows)} images with the start of a worker", seconds)


def test_one_of_two_servers_is_killed_and_no_image_is_lost(start_server, server, pictures, expected, figure):
    doomed = start_server()
    killed = threading.Thread(target=kill_after, args=(doomed, 40))
    killed.start()
    try:
        urls = [doomed.grpc_url, server.grpc_url]
        found, seconds = predict([{"image": picture} for picture in pictures * 6], urls=urls, workers=2)
    finally:
        killed.join()
    assert doomed.process.poll() is not None
    assert [row["error"] for row in found] == [None] * len(pictures) * 6
    assert [without_scores(row["detect"]) for row in found] == expected * 6
    figure("Ray, two workers, one of two servers killed after 40 answers: images", len(found))
    figure("Ray, two workers, one of two servers killed after 40 answers: seconds", seconds)


def kill_after(server, answers):
    """Kill a server after a number of answers."""
    seconds_until(lambda: metric(server, "nv_inference_request_success", model="florence2", version="1") >= answers)
    server.process.kill()


def test_engines_in_the_workers_answer_like_the_server(pictures, expected, figure):
    rows = [{"image": picture} for picture in pictures[:20]] + [{"image": BROKEN}]
    found, seconds = predict(rows, checkpoint=str(DEMO_CHECKPOINT), engine={"device": "cpu", "slots": 8}, cpus=1)
    assert [without_scores(row["detect"]) for row in found[:20]] == expected[:20]
    assert "InvalidArgumentError" in found[20]["error"]
    figure("Ray, an engine in the worker: seconds for 20 images with the start of the worker", seconds)


def test_workers_read_urls(server, bucket):
    paths = sorted(path.relative_to(bucket) for path in (bucket / "3").glob("*.png"))
    rows = [{"image": f"s3://{BUCKET}/scenes/{path}"} for path in paths] + [{"image": f"s3://{BUCKET}/none.png"}]
    found, _ = predict(rows, urls=[server.grpc_url])
    assert len(found) == 21
    assert [row["error"] is None for row in found] == [True] * 20 + [False]
    assert "FileNotFoundError" in found[20]["error"]


def test_what_all_requests_would_meet_ends_the_job(server, pictures):
    with pytest.raises(Exception, match=r"OptionsError.*adapter"):
        predict([{"image": pictures[0]}], urls=server.grpc_url, options={"adapter": "missing"})
    with pytest.raises(Exception, match="GaveUpError"):
        predict([{"image": pictures[0]}], urls="127.0.0.1:9", timeout=0.5, give_up_seconds=0.5)


def test_the_code_of_the_page_runs(cluster, server, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    run_page(ROOT / "docs" / "ray.md", dict.fromkeys(("triton-a:8001", "triton-b:8001"), server.grpc_url), tmp_path)
    rows = pyarrow.parquet.read_table(tmp_path / "out" / "found").to_pylist()
    assert {Path(row["path"]).name for row in rows} == {path.name for path in (ROOT / "examples").glob("*.png")}
    assert {row["error"] for row in rows} == {None}
    assert all(json.loads(row["detect"])["items"] and json.loads(row["caption"])["text"] for row in rows)
