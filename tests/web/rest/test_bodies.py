"""REST over the real app: forms, JSON, results, errors. The answers come from a mock."""

import json

import pytest
from florence2.client import AsyncClient
from florence2.errors import InvalidArgumentError
from florence2.testing import task_response
from florence2.web.rest.operations import OPERATIONS

from tests.web.conftest import IMAGE_SIZE, picture
from tests.web.rest.calls import DOG, TEXT_IMAGE, form, refused

REQUIRED = {"caption": "a dog", "query": "a dog", "expression": "a dog", "region": [1, 2, 30, 40], "prompt": "hello"}


def test_there_is_a_path_for_each_task_method_of_the_client_and_for_run():
    not_tasks = {"close", "health", "is_ready", "map", "run", "run_tasks", "server_info", "stream"}
    methods = {name for name, member in vars(AsyncClient).items() if callable(member) and not name.startswith("_")}
    assert {operation.method for operation in OPERATIONS.values()} == methods - not_tasks | {"run"}


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "run"])
def test_a_form_and_json_send_the_same_request(client, sent, name):
    inputs = {field.name: REQUIRED[field.name] for field in OPERATIONS[name].inputs if field.is_required}
    options = {"num_beams": 2, "early_stopping": False, "length_penalty": 0.5, "suppress_bos": True, "adapter": "a"}
    fields = {key: "true" if value is True else "false" if value is False else value for key, value in options.items()}
    of_form = {key: ",".join(map(str, value)) if isinstance(value, list) else value for key, value in inputs.items()}
    first = form(client, name, of_form | fields)
    count = len(sent)
    second = client.post(f"/v1/{name}", json={"image": TEXT_IMAGE, **inputs, **options})
    assert first.status_code == second.status_code == 200, first.text
    assert sent[:count] == sent[count:]
    assert sent[0][0] == picture()
    assert (sent[0][1].generation.num_beams, sent[0][1].adapter) == (2, "a")
    assert first.json()["result"] == second.json()["result"]


def test_an_answer_is_the_one_of_run_with_the_callers_request_id(client):
    response = client.post("/v1/detect", json={"image": TEXT_IMAGE}, headers={"X-Request-ID": "mine"})
    answer = response.json()
    assert answer["result"]["items"] == [{"label": "dog", "box": [6.432, 9.624001, 19.232, 19.224]}]
    assert (answer["text"], answer["image_size"], answer["finish_reason"]) == (DOG, list(IMAGE_SIZE), "stop")
    assert answer["request_id"] == "mine" == response.headers["X-Request-ID"]


def test_a_truncated_answer_is_an_answer(app_client):
    client = app_client(handler=lambda *_: task_response("A d", IMAGE_SIZE, is_truncated=True))
    answer = form(client, "caption")
    assert (answer.status_code, answer.json()["finish_reason"]) == (200, "length")


def test_several_phrases_are_a_repeated_field_in_a_form_and_an_array_in_json(client, sent):
    form(client, "ground", {"caption": ["a dog", "Zoë's 猫"]})
    client.post("/v1/ground", json={"image": TEXT_IMAGE, "caption": ["a dog", "Zoë's 猫"]})
    form(client, "ground", {"caption": "a dog"})
    phrases = [list(request.phrase_grounding.phrases) for _, request in sent]
    assert phrases == [["a dog", "Zoë's 猫"], ["a dog", "Zoë's 猫"], []]
    assert sent[2][1].phrase_grounding.caption == "a dog"


@pytest.mark.parametrize("text", ["10,20,30,40", " 10, 20.0,3e1,4E+1 ", ["10", "20", "30", "40"]])
def test_a_region_in_a_form_is_four_numbers(client, sent, text):
    assert form(client, "describe-region", {"region": text}).status_code == 200
    box = sent[0][1].region_to_description.region
    assert (box.x_min, box.y_min, box.x_max, box.y_max) == (10, 20, 30, 40)


@pytest.mark.parametrize(
    "part", [("Straße 猫.png", picture()), ("", picture(), ""), ("a.txt", picture(), "text/plain")]
)
def test_a_file_may_have_any_name_and_type(client, part):
    body = form(client, "caption", image=part)
    assert body.status_code == (200 if part[0] else 400), body.text


def test_json_may_begin_with_a_byte_order_mark_and_give_integers_as_any_number(client, sent):
    body = b"\xef\xbb\xbf" + json.dumps({"image": TEXT_IMAGE}).encode()[:-1] + b', "num_beams": 2e0, "max_items": null}'
    response = client.post("/v1/detect", content=body, headers={"Content-Type": "application/json; charset=utf-8"})
    assert response.status_code == 200, response.text
    assert sent[0][1].generation.num_beams == 2


@pytest.mark.parametrize(
    ("name", "data", "field"),
    [
        ("detect", {"num_beams": "three"}, "num_beams"),
        ("detect", {"num_beams": "9"}, "num_beams"),
        ("detect", {"num_beams": "2.5"}, "num_beams"),
        ("detect", {"num_beams": ["1", "1"]}, "num_beams"),
        ("detect", {"num_beams": ""}, "num_beams"),
        ("detect", {"num_beams": "٣"}, "num_beams"),
        ("detect", {"num_beams": "9" * 5000}, "num_beams"),
        ("detect", {"length_penalty": "1e999"}, "length_penalty"),
        ("detect", {"length_penalty": "nan"}, "length_penalty"),
        ("detect", {"suppress_bos": "yes"}, "suppress_bos"),
        ("detect", {"early_stopping": "True"}, "early_stopping"),
        ("detect", {"adapter": ""}, "adapter"),
        ("detect", {"model": "other"}, "model"),
        ("detect", {"priority": "4"}, "priority"),
        ("detect", {"timeout": "0"}, "timeout"),
        ("detect", {"timeout": "61"}, "timeout"),
        ("detect", {"min_score": "2"}, "min_score"),
        ("detect", {"max_items": "0"}, "max_items"),
        ("detect", {"nun_beams": "3"}, "nun_beams"),
        ("caption", {"labels": "dog"}, "labels"),
        ("caption", {"detail": "long"}, "detail"),
        ("ground", {}, "caption"),
        ("ground", {"caption": ["a", " "]}, "caption[1]"),
        ("segment", {"expression": ""}, "expression"),
        ("describe-region", {"region": "1,2,3"}, "region"),
        ("describe-region", {"region": "1,2,3,x"}, "region"),
        ("describe-region", {"region": "5,2,3,4"}, "region"),
        ("analyze-regions", {"max_regions": str(2**40)}, "max_regions"),
        ("analyze-regions", {"caption": "a", "query": "b"}, "query"),
        ("generate", {"prompt": "<OD>"}, "prompt"),
        ("run", {"request": "{"}, "request"),
        ("run", {"request": "[]"}, "request"),
        ("run", {"request": "{}"}, "request.task"),
        ("run", {"request": '{"task_list": {"tasks": [{"ocr": {}}, {"ocR": {}}]}}'}, "request.task_list.tasks[1].ocR"),
        ("run", {"request": '{"ocr": {}, "generation": {"num_beams": "x"}}'}, "request.generation.num_beams"),
        ("run", {"request": '{"ocr": {}, "generation": {"num_beams": 9}}'}, "request.generation.num_beams"),
        ("run", {"request": '{"ocr": {}, "timeout_seconds": 61}'}, "timeout"),
        ("run", {"request": '{"caption_grounding": {"detail": 1099511627776}}'}, "request.caption_grounding.detail"),
        ("run", {"request": '{"ocr": []}'}, "request.ocr"),
        ("run", {"request": '{"ocr": {}, "caption": {}}'}, "request.caption"),
        ("run", {"request": '{"phrase_grounding": {"phrases": ["a", 1]}}'}, "request.phrase_grounding.phrases[1]"),
        ("run", {"request": '{"phrase_grounding": {"phrases": "a"}}'}, "request.phrase_grounding.phrases"),
        ("run", {"request": '{"ocr": {}, "priority": true}'}, "request.priority"),
    ],
)
def test_an_error_names_the_field_of_a_form(client, sent, name, data, field):
    problem = refused(form(client, name, data))
    assert problem["field"] == field
    assert problem["detail"].startswith(f"{field}: got ")
    assert sent == []


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ('"num_beams": "3"', "num_beams"),
        ('"num_beams": true', "num_beams"),
        ('"num_beams": 2.5', "num_beams"),
        ('"num_beams": 1e400', "num_beams"),
        (f'"num_beams": 1{"0" * 5000}', "body"),
        (f'"min_score": 1{"0" * 400}', "min_score"),
        ('"length_penalty": NaN', "body"),
        ('"length_penalty": Infinity', "body"),
        ('"num_beams": 1, "num_beams": 1', "num_beams"),
        ('"labels": "dog"', "labels"),
        ('"labels": [1]', "labels"),
        ('"stream": "true"', "stream"),
        ('"early_stopping": 1', "early_stopping"),
        ('"a\\ud800": 1', "a\\ud800"),
        ('"timeout": "1"', "timeout"),
        ('"model": 3', "model"),
        ('"image": "http://example.com/a.png"', "image"),
        ('"image": ["a"]', "image"),
        ('"image": "abcd"', "image"),
        ('"image": ""', "image"),
        ("", "image"),
        ("[" * 100_000, "body"),
    ],
)
def test_an_error_names_the_field_of_json(client, sent, members, field):
    image = "" if '"image"' in members or not members else f'"image": "{TEXT_IMAGE}", '
    body = f"{{{image}{members}}}".encode()
    response = client.post("/v1/detect", content=body, headers={"Content-Type": "application/json"})
    assert refused(response)["field"] == field
    assert sent == []


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'"a"', b"{", b"\xff", '{"image": "é'.encode("latin-1")])
def test_a_body_that_is_no_json_object_is_refused(client, body):
    response = client.post("/v1/detect", content=body, headers={"Content-Type": "application/json"})
    assert refused(response)["field"] == "body"


@pytest.mark.parametrize(
    ("parts", "hint"),
    [
        ([("image", ("a.png", picture())), ("image", ("b.png", picture()))], "2 files"),
        ([("image", ("a.png", b""))], "empty file"),
        ([("image", ("a.txt", b"hello"))], "image"),
        ([("image", (None, "street.jpg"))], "-F image=@street.jpg"),
        ([("stream", (None, "false"))], "-F image=@street.jpg"),
    ],
)
def test_a_form_has_exactly_one_image(client, parts, hint):
    problem = refused(client.post("/v1/detect", files=parts))
    assert problem["field"] == "image"
    assert hint in problem["detail"]


def test_a_file_in_place_of_a_text_is_refused(client):
    problem = refused(form(client, "ground", image=("a.png", picture()), caption=("a.txt", b"a dog")))
    assert problem["field"] == "caption"


def test_a_form_without_a_boundary_is_refused(client):
    response = client.post("/v1/detect", content=b"x", headers={"Content-Type": "multipart/form-data"})
    assert refused(response)["field"] == "body"


@pytest.mark.parametrize("media_type", ["image/png", "application/x-www-form-urlencoded", "text/plain", ""])
def test_another_media_type_is_refused_with_those_that_are_accepted(client, media_type):
    response = client.post("/v1/detect", content=picture(), headers={"Content-Type": media_type})
    assert "multipart/form-data or application/json" in refused(response, 415)["detail"]
    assert response.headers["Accept-Post"] == "multipart/form-data, application/json"


def test_fields_in_the_url_are_refused(client):
    response = client.post("/v1/detect?num_beams=3", files={"image": picture()})
    assert refused(response)["field"] == "num_beams"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_a_task_has_no_other_method(client, method):
    response = client.request(method, "/v1/detect")
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")


def test_what_the_server_says_about_a_field_names_it_as_the_body_does(app_client):
    def fail(*_):
        raise InvalidArgumentError.of_message(
            "region_to_description.region: got x_max 700.0, expected at most 640 (the width)"
        )

    problem = refused(form(app_client(handler=fail), "describe-region", {"region": "1,2,3,4"}))
    assert (problem["field"], problem["requirement"]) == ("region", "at most 640 (the width)")


def test_run_takes_any_request_in_proto3_json(client, sent):
    request = {"taskList": {"tasks": [{"object_detection": {}}, {"ocr": {}}]}, "generation": {"num_beams": "2"}}
    answer = form(client, "run", {"request": json.dumps(request), "labels": "cat"}).json()
    detections, text = answer["result"]["outcomes"]
    assert (detections["items"], text["text"], len(answer["steps"])) == ([], "A dog.", 2)
    assert {each.generation.num_beams for _, each in sent} == {2}
