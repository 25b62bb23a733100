"""Runs over a mock of a server: what is requested, recorded, resumed and refused."""

import json

import pytest
from florence2 import TASKS, v1
from florence2.bulk import GaveUpError, JobSettings, OptionsError, StateInUseError, StateMismatchError
from florence2.bulk.state import Record, State
from florence2.bulk.tasks import bulk_tasks
from florence2.errors import (
    AccessDeniedError,
    DeadlineExceededError,
    InvalidArgumentError,
    ModelNotFoundError,
    ServerError,
    UnavailableError,
)

from tests.bulk.conftest import RecordingTransport, ids, lines, picture, respond
from tests.bulk.test_sources import FOLDER_IDS, write_manifest, write_shard

pytestmark = pytest.mark.usefixtures("no_waiting")

INVALID = InvalidArgumentError.of_field("IMAGE", "bytes", "an image")


def failing(error, image, times=10**9):
    """A mock that raises an error for one image, a number of times."""
    left = times

    def handle(given, request):
        nonlocal left
        if given == image and left:
            left -= 1
            raise error
        return respond(given, request)

    return RecordingTransport(handle)


def test_several_tasks_are_one_request(run_job, folder, transport, tmp_path):
    summary = run_job([folder], ["detect", "caption"], tmp_path / "out.jsonl")
    assert (summary.images, summary.failed, summary.done_now) == (5, 0, 5)
    assert ids(tmp_path / "out.jsonl") == FOLDER_IDS
    first = lines(tmp_path / "out.jsonl")[0]
    assert (first["image"], first["image_size"]) == (str(folder / "a/1.JPG"), [64, 48])
    assert first["results"]["caption"]["text"] == "A dog."
    assert [item["label"] for item in first["results"]["detect"]["items"]] == ["dog"]
    # The mock is called for each task of a list.
    assert [request.WhichOneof("task") for _, request in transport.requests[:2]] == ["object_detection", "caption"]


def test_the_same_command_does_nothing_again(run_job, folder, transport, tmp_path):
    run_job([folder], ["detect"], tmp_path / "out.jsonl")
    sent = len(transport.requests)
    before = (tmp_path / "out.jsonl").read_bytes()
    summary = run_job([folder], ["detect"], tmp_path / "out.jsonl")
    assert (summary.images, summary.done_now, len(transport.requests)) == (5, 0, sent)
    assert (tmp_path / "out.jsonl").read_bytes() == before


def test_a_run_resumes_with_what_is_missing(run_job, folder, transport, tmp_path):
    """A run that gives up keeps what it has done."""
    broken = failing(AccessDeniedError("no"), picture(0))
    with pytest.raises(GaveUpError):
        run_job(
            [folder], ["detect"], tmp_path / "out.jsonl", with_transport=broken, concurrency=1, give_up_seconds=0.05
        )
    assert not (tmp_path / "out.jsonl").exists()
    summary = run_job([folder], ["detect"], tmp_path / "out.jsonl")
    assert (summary.images, summary.failed) == (5, 0)
    assert {image for image, _ in transport.requests} == {picture(0), picture(2)}  # the last two of five
    assert len(transport.requests) == 2
    assert ids(tmp_path / "out.jsonl") == FOLDER_IDS


def test_an_input_in_the_task_is_that_of_all_images(run_job, folder, transport, tmp_path):
    run_job([folder], ["ground=A red circle.", "ground=A dog."], tmp_path / "out.jsonl")
    captions = [request.phrase_grounding.caption for _, request in transport.requests[:2]]
    assert captions == ["A red circle.", "A dog."]
    assert list(lines(tmp_path / "out.jsonl")[0]["results"]) == ["ground=A red circle.", "ground=A dog."]


def test_inputs_of_a_manifest_are_those_of_its_images(run_job, folder, transport, tmp_path):
    rows = [
        {"image": "c.png", "text": "one"},
        {"image": "c.png", "text": "not this", "ground": ["two", "three"]},
        {"image": "c.png"},
    ]
    summary = run_job([write_manifest(folder / "list.jsonl", rows)], ["ground"], tmp_path / "out.jsonl")
    sent = [request.phrase_grounding for _, request in transport.requests]
    assert sorted(sent, key=str) == sorted(
        [v1.PhraseGrounding(caption="one"), v1.PhraseGrounding(phrases=["two", "three"])], key=str
    )
    assert summary.failed == 1
    (failure,) = lines(tmp_path / "out.failed.jsonl")
    assert failure["id"] == "list.jsonl::3"
    assert failure["error"]["message"] == "text: got None, expected an input for the task ground"


def test_options_are_sent_with_each_request(run_job, folder, transport, tmp_path):
    run_job([folder], ["detect"], tmp_path / "out.jsonl", options={"num_beams": 3, "adapter": "tags"})
    assert {(request.generation.num_beams, request.adapter) for _, request in transport.requests} == {(3, "tags")}


def test_a_failed_image_is_listed_and_does_not_stop_the_run(run_job, folder, tmp_path):
    transport = failing(INVALID, picture(2), times=1)
    summary = run_job([folder], ["detect"], tmp_path / "out.jsonl", with_transport=transport)
    assert (summary.images, summary.failed) == (5, 1)
    assert ids(tmp_path / "out.jsonl") == FOLDER_IDS[:-1]
    (failure,) = lines(tmp_path / "out.failed.jsonl")
    assert (failure["id"], failure["error"]["type"]) == ("c.png", "InvalidArgumentError")
    assert run_job([folder], ["detect"], tmp_path / "out.jsonl").done_now == 0
    retried = run_job([folder], ["detect"], tmp_path / "out.jsonl", retry_failed=True)
    assert (retried.done_now, retried.failed, retried.failures) == (1, 0, None)
    assert ids(tmp_path / "out.jsonl") == FOLDER_IDS
    assert not (tmp_path / "out.failed.jsonl").exists()


def test_a_failed_task_leaves_the_results_of_the_others(run_job, folder, tmp_path):
    def handle(image, request):
        if request.WhichOneof("task") == "object_detection" and image == picture(2):
            raise INVALID
        return respond(image, request)

    transport = RecordingTransport(handle)
    run_job([folder], ["detect", "caption"], tmp_path / "out.jsonl", with_transport=transport)
    results = lines(tmp_path / "out.jsonl")[-1]["results"]
    assert results["caption"]["text"] == "A dog."
    assert results["detect"]["error"]["type"] == "InvalidArgumentError"
    assert [line["task"] for line in lines(tmp_path / "out.failed.jsonl")] == ["detect"]


def test_a_file_that_cannot_be_read_is_that_images_error(run_job, folder, tmp_path):
    manifest = write_manifest(folder / "list.jsonl", [{"image": "missing.png"}, {"image": "c.png"}])
    assert run_job([manifest], ["detect"], tmp_path / "out.jsonl").failed == 1
    (failure,) = lines(tmp_path / "out.failed.jsonl")
    assert failure["error"]["type"] == "FileNotFoundError"


@pytest.mark.parametrize("error", [UnavailableError("full"), ServerError("x"), DeadlineExceededError("x")])
def test_an_error_that_passes_is_no_failure(run_job, folder, tmp_path, error):
    transport = failing(error, picture(2), times=2)
    assert run_job([folder], ["detect"], tmp_path / "out.jsonl", with_transport=transport).failed == 0


def test_an_outage_longer_than_any_number_of_attempts_is_waited_for(run_job, folder, tmp_path):
    transport = failing(UnavailableError("down"), picture(2), times=50)
    summary = run_job([folder], ["detect"], tmp_path / "out.jsonl", with_transport=transport)
    assert (summary.images, summary.failed) == (5, 0)


@pytest.mark.parametrize("error", [ServerError("INTERNAL"), DeadlineExceededError("too slow")])
def test_an_image_that_no_healthy_server_answers_fails(run_job, folder, tmp_path, error):
    transport = failing(error, picture(2))
    assert run_job([folder], ["detect"], tmp_path / "out.jsonl", with_transport=transport).failed == 1
    assert [line["id"] for line in lines(tmp_path / "out.failed.jsonl")] == ["c.png"]


@pytest.mark.parametrize("error", [ModelNotFoundError("unknown model: 'x'"), AccessDeniedError("no key")])
def test_a_server_that_refuses_everything_ends_the_run_at_once(run_job, folder, tmp_path, error):
    transport = failing(error, picture(1))
    with pytest.raises(GaveUpError, match=str(error)):
        run_job([folder], ["detect"], tmp_path / "out.jsonl", with_transport=transport, concurrency=1)
    assert len(transport.requests) == 1


def test_an_option_that_the_server_rejects_ends_the_run(run_job, folder, tmp_path):
    error = InvalidArgumentError.of_field("adapter", "tags", "one of []")
    with pytest.raises(OptionsError, match="adapter"):
        run_job([folder], ["detect"], tmp_path / "out.jsonl", with_transport=failing(error, picture(1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": ["caption"]}, r'task was \["detect"\], is \["caption"\]'),
        ({"options": {"num_beams": 3}}, r'options was \{\}, is \{"num_beams": 3\}'),
        ({"sources": "another"}, "source was"),
    ],
)
def test_a_state_of_another_run_is_refused_with_what_differs(run_job, folder, tmp_path, change, message):
    first = {"sources": [folder], "tasks": ["detect"]}
    second = {**first, **change}
    run_job(**first, output=tmp_path / "out.jsonl")
    if change.get("sources") == "another":
        second["sources"] = [folder / "a"]
    with pytest.raises(StateMismatchError, match=message):
        run_job(**second, output=tmp_path / "out.jsonl")


def test_a_state_can_have_another_output(run_job, folder, transport, tmp_path):
    run_job([folder], ["detect"], tmp_path / "out.jsonl")
    sent = len(transport.requests)
    run_job([folder], ["detect"], tmp_path / "out.json", state=tmp_path / "out.jsonl.state")
    assert len(transport.requests) == sent
    assert len(json.loads((tmp_path / "out.json").read_text())["images"]) == len(FOLDER_IDS)


def test_two_runs_do_not_share_a_state(run_job, folder, tmp_path):
    with State(tmp_path / "out.jsonl.state"), pytest.raises(StateInUseError, match="another run uses"):
        run_job([folder], ["detect"], tmp_path / "out.jsonl")
    assert run_job([folder], ["detect"], tmp_path / "out.jsonl").images == len(FOLDER_IDS)


def test_an_id_that_occurs_twice_ends_the_run(run_job, folder, tmp_path):
    rows = [{"image": "c.png", "id": "same"}, {"image": "b/2.png", "id": "same"}]
    with pytest.raises(InvalidArgumentError, match="'same', expected each id once"):
        run_job([write_manifest(folder / "list.jsonl", rows)], ["detect"], tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([], "task: got"),
        (["detekt"], "task: got 'detekt', expected one of caption, "),
        (["detect", "detect"], "expected each task once"),
        (["detect=x"], "detect without an input"),
        (["read-region=1,2,3"], "expected four numbers"),
        (["ground="], "phrase_grounding.caption"),
        (["ground"], "ground=INPUT, or a manifest or table with the field text"),
    ],
)
def test_a_wrong_task_is_found_before_the_first_image(run_job, folder, transport, tmp_path, tasks, message):
    with pytest.raises(InvalidArgumentError, match=message):
        run_job([folder], tasks, tmp_path / "out.jsonl")
    assert not transport.requests
    assert not (tmp_path / "out.jsonl.state").exists()


def test_every_task_has_a_name_here():
    inputs = {"region": "=1,2,3,4", "text": "=hello", "caption": "=a", "expression": "=a", "query": "=a", None: ""}
    for task in TASKS:
        for name in filter(None, (task.name, task.token)):
            (found,) = bulk_tasks([f"{name}{inputs[task.input]}"])
            assert found.request({}).WhichOneof("task") == task.name


def test_a_source_without_images_is_refused(run_job, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidArgumentError, match="at least one image"):
        run_job([tmp_path / "empty"], ["detect"], tmp_path / "out.jsonl")


def test_an_output_that_cannot_be_written_is_found_before_the_first_image(run_job, folder, transport, tmp_path):
    (tmp_path / "out.jsonl").mkdir()
    with pytest.raises(IsADirectoryError):
        run_job([folder], ["detect"], tmp_path / "out.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        run_job([folder], ["detect"], tmp_path / "file" / "out.jsonl")
    assert not transport.requests


@pytest.mark.parametrize(("labels", "count"), [(["dog"], 1), (["cat"], 0)])
def test_items_that_the_filters_exclude_are_left_out(run_job, folder, tmp_path, labels, count):
    run_job([folder], ["detect", "caption"], tmp_path / "out.jsonl", filters={"labels": labels})
    assert {len(line["results"]["detect"]["items"]) for line in lines(tmp_path / "out.jsonl")} == {count}


def test_a_filter_by_scores_that_the_server_does_not_send_ends_the_run(run_job, folder, tmp_path):
    with pytest.raises(OptionsError, match="scores"):
        run_job([folder], ["detect"], tmp_path / "out.jsonl", filters={"min_score": 0.5})


def test_a_shard_is_resumed(run_job, tmp_path):
    shard = write_shard(tmp_path / "x.tar", [(f"{number}.png", picture(number)) for number in range(9)])
    with State(tmp_path / "out.jsonl.state") as state:
        state.begin(JobSettings([str(shard)], ["caption"], "").lasting())
        state.write([Record("x.tar::4.png", 4, '{"id": "x.tar::4.png"}', None)])
    assert run_job([shard], ["caption"], tmp_path / "out.jsonl").done_now == 8
    assert ids(tmp_path / "out.jsonl") == [f"x.tar::{number}.png" for number in range(9)]
