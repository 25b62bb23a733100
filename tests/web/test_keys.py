import os

import pytest
from florence2.errors import InvalidArgumentError
from florence2.web.keys import ApiKeys

from tests.web.conftest import picture

KEY = "a" * 16


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"# people\n\nann:{KEY}\n{'b' * 16}\n")
    return path


def rewrite(path, text: str) -> None:
    """Replace a file as Kubernetes does, with another time of change."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.utime(new, ns=(0, path.stat().st_mtime_ns + 1))
    new.replace(path)


@pytest.mark.parametrize("headers", [{"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY}])
def test_a_known_key_is_accepted_in_either_header_and_named(app_client, file, headers):
    assert app_client(api_keys=file).post("/v1/echo", headers=headers).json()["key"] == "ann"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": KEY + "a"},
        {"X-API-Key": "ann"},
        {"Authorization": f"Basic {KEY}"},
        {"X-API-Key": f"ann:{KEY}"},
    ],
)
def test_an_unknown_or_missing_key_is_refused_before_the_body_is_read(app_client, file, headers):
    refused = app_client(api_keys=file).post("/v1/echo", content=picture(), headers=headers)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")


def test_health_and_unknown_pages_need_no_key_but_the_whole_api_does(app_client, file):
    client = app_client(api_keys=file)
    assert [client.get(path).status_code for path in ("/live", "/ready", "/nothing")] == [200, 200, 404]
    assert [client.get(path).status_code for path in ("/v1/tasks", "/v1/nothing")] == [401, 401]


def test_keys_are_read_again_when_their_file_changes(file):
    keys = ApiKeys(file)
    assert keys.name(KEY) == "ann"
    rewrite(file, "bob:" + "c" * 16)
    assert (keys.name(KEY), keys.name("c" * 16)) == (None, "bob")


@pytest.mark.parametrize("text", ["short", None])
def test_without_readable_keys_nobody_is_accepted_until_they_can_be_read(app_client, file, text):
    client = app_client(api_keys=file)
    headers = {"X-API-Key": KEY}
    backup = file.read_text()
    if text is None:
        file.unlink()
    else:
        rewrite(file, text)
    assert client.post("/v1/echo", headers=headers).status_code == 503
    file.write_text(backup)
    assert client.post("/v1/echo", headers=headers).status_code == 200


@pytest.mark.parametrize("text", ["", "# none\n", "tooshort", "ann:with a space in it", "bad name:" + "x" * 20])
def test_a_file_without_keys_or_with_a_bad_line_is_refused_without_showing_it(tmp_path, text):
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(InvalidArgumentError) as error:
        ApiKeys(path)
    assert not text.strip() or text not in str(error.value)
