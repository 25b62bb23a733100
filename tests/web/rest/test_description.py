"""What the REST API says about itself: the lists of tasks and servers, the OpenAPI description, the docs page."""

import json

import jsonschema
import pytest
from florence2.web.rest.operations import OPERATIONS
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from tests.web.rest.calls import events_of, form


def test_tasks_are_listed_with_what_a_page_needs_for_controls(client):
    listed = client.get("/v1/tasks").json()
    tasks = {task["name"]: task for task in listed["tasks"]}
    assert list(tasks) == [name for name in OPERATIONS if name != "run"]
    assert tasks["caption"]["inputs"][0]["choices"] == ["brief", "detailed", "paragraph"]
    assert tasks["ground"]["inputs"][0] | {"description": ""} == {
        "name": "caption",
        "type": "phrases",
        "required": True,
        "description": "",
    }
    found = tasks["read-text-regions"]
    assert (found["result"], found["token"]) == ("text_regions", "<OCR_WITH_REGION>")
    assert [name for name, task in tasks.items() if task["is_cascade"]] == ["ground-caption", "analyze-regions"]
    options = {option["name"]: option for option in listed["options"]}
    assert (options["num_beams"]["minimum"], options["num_beams"]["maximum"]) == (1, 8)
    assert all(task["description"] and set(task["options"]) <= set(options) for task in tasks.values())


def test_the_server_is_listed_with_its_engines(client):
    (model,) = client.get("/v1/server").json()["models"]
    assert model["name"] == "florence2"


@pytest.fixture
def description(client):
    return client.get("/openapi.json").json()


def test_answers_and_events_conform_to_the_description(client, description):
    registry = Registry().with_resource("urn:openapi", DRAFT202012.create_resource(description))

    def check(value, pointer):
        jsonschema.Draft202012Validator({"$ref": f"urn:openapi#{pointer}"}, registry=registry).validate(value)

    for path in ("detect", "caption", "read-text-regions", "analyze-regions", "ground-caption"):
        answered = f"/paths/~1v1~1{path}/post/responses/200/content"
        check(form(client, path).json(), f"{answered}/application~1json/schema")
        for name, data in events_of(form(client, path, {"stream": "true"})):
            check({"event": name, "data": json.dumps(data)}, "/components/schemas/Event")
    for path in ("tasks", "server"):
        check(
            client.get(f"/v1/{path}").json(), f"/paths/~1v1~1{path}/get/responses/200/content/application~1json/schema"
        )
    check(form(client, "detect", {"num_beams": "9"}).json(), "/components/schemas/Problem")


def test_every_example_of_the_description_is_accepted(client, description):
    for path, item in description["paths"].items():
        if "post" in item:
            bodies = item["post"]["requestBody"]["content"]
            assert client.post(path, json=bodies["application/json"]["example"]).status_code == 200, path
            fields = bodies["multipart/form-data"]["example"].items()
            data = {
                name: json.dumps(value) if name == "request" else value for name, value in fields if name != "image"
            }
            assert form(client, path.removeprefix("/v1/"), data).status_code == 200, path


def test_every_reference_of_the_description_leads_to_a_schema(description):
    text = json.dumps(description)
    for part in text.split('"$ref": "#/')[1:]:
        found = description
        for key in part.partition('"')[0].split("/"):
            found = found[key]
        assert found


def test_the_description_has_the_comments_of_the_protos_and_the_limits_of_this_server(app_client):
    description = app_client(timeout=7).get("/openapi.json").json()
    schemas = description["components"]["schemas"]
    assert "Required; not blank." in schemas["florence2.v1.Prompt"]["properties"]["text"]["description"]
    assert all("description" in schema for name, schema in schemas.items() if name.startswith("florence2.v1."))
    body = description["paths"]["/v1/detect"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["timeout"]["maximum"] == 7
    assert body["properties"]["model"]["enum"] == ["florence2", None]


def test_the_docs_page_loads_everything_from_here(client):
    page = client.get("/docs")
    assert "://" not in page.text
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js"):
        assert f'"docs/{name}"' in page.text
        assert client.get(f"/docs/{name}").status_code == 200
