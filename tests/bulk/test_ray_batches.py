"""Batches as Ray makes them, over a mock of a server; `distributed` has the tests with Ray itself."""

import asyncio
import gc
import json
import pickle

import numpy as np
import pyarrow as pa
import pytest
from florence2.bulk import GaveUpError, OptionsError
from florence2.bulk.ray import Florence2Predictor, checked_tasks
from florence2.errors import InvalidArgumentError, UnavailableError
from florence2.testing import task_response

from tests.bulk.conftest import RecordingTransport, picture, respond

BROKEN = b"broken"


def reject_broken(image, request):
    if image == BROKEN:
        raise InvalidArgumentError.of_field("IMAGE", "broken", "an image")
    return respond(image, request)


@pytest.fixture
def predictor(monkeypatch):
    """`predictor(tasks, handler, ...)`: a predictor whose engine is a mock. All are closed at the end."""
    made = []

    def make(tasks, handler=reject_broken, **arguments):
        transport = RecordingTransport(handler)
        monkeypatch.setattr("florence2.bulk.ray.load_transport", lambda _: lambda *_: transport)
        made.append(Florence2Predictor(tasks, checkpoint="mock", **arguments))
        return made[-1], transport

    yield make
    for each in made:
        each.close()


def loaded(texts):
    return [text and json.loads(text) for text in texts]


def test_a_batch_of_columns_gets_a_column_for_each_task_and_one_for_errors(predictor):
    predict, _ = predictor(["detect", "caption"])
    images = np.array([picture(1), BROKEN, picture(2)], dtype=object)
    found = predict({"image": images, "name": np.array(["a", "b", "c"])})
    assert list(found) == ["image", "name", "detect", "caption", "error"]
    assert found["name"].tolist() == ["a", "b", "c"]
    first, failed, last = loaded(found["caption"])
    assert first == last == {"type": "text", "text": "A dog.", "image_size": [64, 48]}
    assert failed is None
    assert [result and result["items"][0]["label"] for result in loaded(found["detect"])] == ["dog", None, "dog"]
    none, error, _ = loaded(found["error"])
    assert none is None
    assert error == {"type": "InvalidArgumentError", "message": "IMAGE: got 'broken', expected an image"}


def test_a_table_stays_a_table_whose_new_columns_are_text_even_if_all_are_null(predictor):
    predict, _ = predictor(["caption"])
    found = predict(pa.table({"image": [picture()]}))
    assert found.schema.field("error").type == pa.string()
    assert found["error"].to_pylist() == [None]
    assert loaded(found["caption"].to_pylist())[0]["text"] == "A dog."
    failed = predict(pa.table({"image": pa.array([None], pa.binary())}))
    assert failed["caption"].to_pylist() == [None]
    assert "expected an image file" in failed["error"][0].as_py()


def test_images_are_paths_arrays_or_structs(predictor, tmp_path):
    predict, transport = predictor(["caption"], respond, column="picture")
    path = tmp_path / "one.png"
    path.write_bytes(picture(1))
    rows = [str(path), {"bytes": picture(2), "path": "x"}, {"bytes": None, "path": str(path)}]
    rows += [np.zeros((8, 8, 3), np.uint8), str(tmp_path / "none.png")]
    images = np.empty(len(rows), dtype=object)
    images[:] = rows
    errors = loaded(predict({"picture": images})["error"])
    assert errors[:4] == [None] * 4
    assert errors[4]["type"] == "FileNotFoundError"
    assert {picture(1), picture(2)} < {image for image, _ in transport.requests}


def test_columns_are_inputs_of_tasks_that_lack_theirs(predictor):
    predict, transport = predictor(["ground", "segment=the dog"])
    found = predict(pa.table({"image": [picture()] * 2, "text": ["A dog.", None]}))
    assert transport.requests[0][1].phrase_grounding.caption == "A dog."
    none, missing = loaded(found["error"].to_pylist())
    assert none is None
    assert "an input for the task ground" in missing["message"]


def test_only_the_failed_task_of_an_image_has_an_error(predictor):
    def no_caption(image, request):
        if request.HasField("caption"):
            raise InvalidArgumentError("no caption")
        return respond(image, request)

    predict, _ = predictor(["caption", "detect"], no_caption)
    found = predict(pa.table({"image": [picture()]})).to_pylist()[0]
    error = {"type": "InvalidArgumentError", "message": "no caption"}
    assert json.loads(found["caption"]) == {"error": error}
    assert json.loads(found["error"]) == error | {"task": "caption"}
    assert json.loads(found["detect"])["items"]


def test_a_result_says_that_it_is_truncated(predictor):
    predict, _ = predictor(["caption"], lambda *_: task_response("A d", is_truncated=True))
    (text,) = predict(pa.table({"image": [picture()]}))["caption"].to_pylist()
    assert json.loads(text)["truncated"] is True


def test_no_more_images_are_in_flight_than_allowed_and_rows_keep_their_order(predictor, monkeypatch):
    active, most = 0, 0
    send = RecordingTransport.infer_async

    async def infer_async(*arguments):
        nonlocal active, most
        active += 1
        most = max(most, active)
        await asyncio.sleep(0.001)
        active -= 1
        return await send(*arguments)

    monkeypatch.setattr(RecordingTransport, "infer_async", infer_async)
    predict, transport = predictor(["caption"], respond, in_flight=3)
    batch = predict(pa.table({"image": [picture(number) for number in range(40)], "number": range(40)}))
    assert batch["number"].to_pylist() == list(range(40))
    assert len(transport.requests) == 40
    assert most == 3


def test_a_batch_without_images_or_with_a_column_named_like_a_result_is_refused(predictor):
    predict, _ = predictor(["caption"])
    with pytest.raises(InvalidArgumentError, match="expected a column named 'image'"):
        predict({"bytes": np.array([picture()])})
    with pytest.raises(InvalidArgumentError, match="column: got 'caption'"):
        predict(pa.table({"image": [picture()], "caption": ["one"]}))


def test_what_every_request_would_meet_ends_the_job(predictor, monkeypatch):
    monkeypatch.setattr("florence2.bulk.outage._FIRST_SECONDS", 0.0001)
    rejecting, _ = predictor(["caption"], raising(InvalidArgumentError.of_field("adapter", "x", "one of y")))
    with pytest.raises(OptionsError, match="adapter") as caught:
        rejecting(pa.table({"image": [picture()]}))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 - as Ray does
    silent, _ = predictor(["caption"], raising(UnavailableError("full")), give_up_seconds=0.05)
    with pytest.raises(GaveUpError, match="full"):
        silent(pa.table({"image": [picture()]}))


def raising(error):
    def handle(image, request):  # noqa: ARG001
        raise error

    return handle


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"tasks": ["detekt"], "urls": "a:1"}, "task: got 'detekt'"),
        ({"tasks": ["detect"]}, "urls"),
        ({"tasks": ["detect"], "urls": "a:1", "checkpoint": "x"}, "urls"),
        ({"tasks": ["detect"], "urls": []}, "url"),
        ({"tasks": ["detect"], "urls": "a:1", "in_flight": 0}, "in_flight"),
        ({"tasks": ["detect"], "urls": "a:1", "priority": 4}, "priority"),
        ({"tasks": ["detect"], "urls": "a:1", "give_up_seconds": 0}, "give_up_seconds"),
        ({"tasks": ["detect"], "urls": "a:1", "engine": {"slots": 1}}, "engine"),
        ({"tasks": ["detect"], "urls": "a:1", "options": {"num_beams": 99}}, "num_beams"),
    ],
)
def test_a_wrong_argument_is_named(arguments, named):
    with pytest.raises(InvalidArgumentError, match=named):
        Florence2Predictor(**arguments)
    with pytest.raises(InvalidArgumentError, match="detekt"):
        checked_tasks(["detekt"])


def test_workers_begin_with_different_servers(monkeypatch):
    monkeypatch.setattr("florence2.bulk.ray.random.randrange", lambda count: count - 1)
    urls = []
    monkeypatch.setattr("florence2.bulk.ray.AsyncClient", lambda url, **_: urls.append(url) or FakeClient())
    Florence2Predictor(["detect"], urls=["a:1", "b:1", "c:1"]).close()
    assert urls == [["c:1", "a:1", "b:1"]]


class FakeClient:
    async def close(self):
        pass


def test_deleting_a_predictor_closes_its_client_and_ends_its_thread(monkeypatch):
    closed = []
    monkeypatch.setattr(RecordingTransport, "close", lambda _: closed.append("closed"))

    async def close_async(_):
        closed.append("closed")

    monkeypatch.setattr(RecordingTransport, "close_async", close_async)
    transport = RecordingTransport()
    monkeypatch.setattr("florence2.bulk.ray.load_transport", lambda _: lambda *_: transport)
    predict = Florence2Predictor(["caption"], checkpoint="mock")
    predict(pa.table({"image": [picture()]}))
    thread = predict._thread._thread
    del predict
    gc.collect()
    assert closed == ["closed"]
    assert not thread.is_alive()
