import logging

import pytest
from florence2.errors import (
    AccessDeniedError,
    DeadlineExceededError,
    InvalidArgumentError,
    MessageTooLargeError,
    ModelNotFoundError,
    ServerError,
    UnavailableError,
)
from florence2.web.problems import problem_of
from starlette.responses import StreamingResponse
from starlette.routing import Route

ADDRESS = "10.1.2.3:8001"


def unreachable() -> UnavailableError:
    error = UnavailableError(f"failed to connect to {ADDRESS}")
    error.is_refusal = False
    return error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidArgumentError("a secret"), 400),
        (MessageTooLargeError("large"), 413),
        (unreachable(), 503),
        (DeadlineExceededError(ADDRESS), 504),
        (ServerError(ADDRESS), 502),
        (ModelNotFoundError(ADDRESS), 502),
        (AccessDeniedError(ADDRESS), 502),
        (KeyError(ADDRESS), 500),
    ],
)
def test_each_error_has_a_status_and_no_addresses_of_servers(app_client, caplog, error, status):
    async def fail(request):  # noqa: ARG001
        raise error

    client = app_client(Route("/v1/fail", fail))
    with caplog.at_level(logging.INFO):
        answer = client.get("/v1/fail", headers={"X-Request-ID": "7"})
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["request_id"]) == (status, status, "7")
    assert ADDRESS not in answer.text
    assert ("retry-after" in answer.headers) == (status == 503)
    logged = "".join(record.getMessage() for record in caplog.records)
    assert (str(error.args[0]) in logged) == (status != 400), "the log says why, but not what the caller wrote"


def test_an_invalid_argument_names_field_value_and_requirement():
    error = InvalidArgumentError.of_field("caption", "x\ud800" + "y" * 200, "at most 3 tokens")
    problem = problem_of(error, "7").to_dict()
    assert (problem["field"], problem["requirement"]) == ("caption", "at most 3 tokens")
    assert problem["value"].startswith("x\\ud800")
    assert len(problem["value"]) < 120
    assert problem_of(error).response().status_code == 400


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("GET", "/v1/echo", 405)])
def test_unknown_paths_and_methods_are_problems_too(app_client, method, path, status):
    answer = app_client().request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_a_response_that_fails_after_it_has_begun_breaks_the_connection(app_socket):
    async def broken(request):  # noqa: ARG001
        async def pieces():
            yield b"begun"
            raise KeyError(ADDRESS)

        return StreamingResponse(pieces())

    connection = app_socket(Route("/v1/broken", broken))
    connection.sendall(b"GET /v1/broken HTTP/1.1\r\nHost: localhost\r\n\r\n")
    received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b"begun" in received
    assert not received.endswith(b"0\r\n\r\n"), "the end of a whole response"
